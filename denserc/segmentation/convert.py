"""Weights of published CAT-Seg models in ours, and checkpoints of ours made of them.

CAT-Seg's files are over OpenAI's CLIP, those of DeCLIP's branch over EVA-CLIP. Both hold the whole CLIP, text tower
included.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ..encoders import load_exactly, to_open_clip_keys
from ..encoders.key_formats import DERIVED, Renames, renamed_by_first
from ..structures import CheckpointError, WeightsMismatchError
from .modeling.meta_arch import CATSeg

_PREDICTOR = "sem_seg_head.predictor."
_CLIP = f"{_PREDICTOR}clip_model."
_AGGREGATOR = f"{_PREDICTOR}transformer."
_MARKS = (f"{_AGGREGATOR}conv1.weight", f"{_CLIP}visual.")  # of every CAT-Seg
# Names below `_AGGREGATOR`, and their upsampling, in ours.
_RULES: Renames = (
    (r"^conv1\.", "embedding."),
    (r"^guidance_projection\.", "appearance_projection."),
    (r"^text_guidance_projection\.", "text_projection."),
    (r"^decoder_guidance_projection\.(\d+)\.", r"guidance_projections.\1."),
    (r"^layers\.(\d+)\.swin_block\.block_1\.", r"layers.\1.spatial.blocks.0."),
    (r"^layers\.(\d+)\.swin_block\.block_2\.", r"layers.\1.spatial.blocks.1."),
    (r"^layers\.(\d+)\.swin_block\.guidance_norm\.", r"layers.\1.spatial.guidance_norm."),
    (r"^layers\.(\d+)\.attention\.padding_tokens$", r"layers.\1.classes.padding_token"),
    (r"^layers\.(\d+)\.attention\.padding_guidance$", r"layers.\1.classes.padding_guidance"),
    (r"^layers\.(\d+)\.attention\.attention\.", r"layers.\1.classes.attention."),
    (r"^layers\.(\d+)\.attention\.MLP\.", r"layers.\1.classes.mlp."),
    (r"^layers\.(\d+)\.attention\.norm", r"layers.\1.classes.norm"),
    (r"^decoder1\.up\.", "decoders.0.up."),
    (r"^decoder2\.up\.", "decoders.1.up."),
    (r"^decoder1\.conv\.double_conv\.", "decoders.0.convs."),
    (r"^decoder2\.conv\.double_conv\.", "decoders.1.convs."),
    (r"^head\.", "head."),
)
_UPSAMPLING = re.compile(r"^upsample([12])\.(weight|bias)$")
# Computed from the architecture, or never read by CAT-Seg's forward.
_DROPPED = re.compile(rf"{DERIVED.pattern}|^sem_seg_head\.predictor\.clip_model\.logit_scale$")
_APART = re.compile(r"^(.*\.attn)\.q_proj_weight$")


@dataclass(frozen=True)
class ConvertedModel:
    """Result of converting a published file.

    Args:
        model: Model with all weights, in eval mode; its vocabulary is not set yet.
        dropped: Keys of the file that are left out on purpose.
    """

    model: CATSeg
    dropped: tuple[str, ...]


def convert_model(state: Mapping[str, torch.Tensor], cfg: CfgNode, source: str) -> ConvertedModel:
    """Convert a published CAT-Seg exactly, or raise.

    Args:
        state: The "model" of a published file.
        cfg: Configuration of the model; MODEL.ENCODER.NAME is its CLIP, MODEL.CONSTRUCTION its last block.
        source: Name of the file, for errors.

    Raises:
        CheckpointError: The file is not a CAT-Seg checkpoint.
        WeightsMismatchError: It has another size or configuration; the message has the full lists of keys.
    """
    converted = from_catseg(state, source)
    build = cfg.clone()
    build.defrost()
    build.MODEL.WEIGHTS = build.MODEL.ENCODER.CHECKPOINT = build.MODEL.ENCODER.WEIGHTS = ""
    build.MODEL.ENCODER.RANDOM_INIT = True  # replaced by the file's
    build.MODEL.DEVICE = "cpu"
    build.DATASETS.TRAIN = build.DATASETS.TEST = ()  # they need not exist here
    model = build_model(build)
    load_exactly(model, converted, source, "Give the configuration that this model was trained with (--config).")
    model.metadata["text_fingerprint"] = model.text_tower.fingerprint()
    return ConvertedModel(model=model.eval(), dropped=tuple(key for key in state if _DROPPED.search(key)))


def from_catseg(state: Mapping[str, torch.Tensor], source: str = "this file") -> dict[str, torch.Tensor]:
    """A published state dict in our names, both towers included.

    Raises:
        CheckpointError: No CAT-Seg, or (WeightsMismatchError) one with keys that no published one has.
    """
    if not all(any(key.startswith(mark) for key in state) for mark in _MARKS):
        raise CheckpointError(
            f"{source} is no CAT-Seg: it lacks {' or '.join(_MARKS)}*. Its first keys are {sorted(state)[:8]}."
        )
    clip, converted, unknown = {}, {}, []
    for key, value in state.items():
        if _DROPPED.search(key):
            continue
        if key.startswith(_CLIP):
            clip[key.removeprefix(_CLIP)] = value
        elif (new := original_to_ours(key)) is not None:
            converted[new] = value.flatten() if ".padding_" in new else value
        else:
            unknown.append(key)
    if unknown:
        raise WeightsMismatchError(source, unexpected=unknown, advice="It is no CAT-Seg as it was published.")
    for key, value in to_open_clip_keys(_stack_projections(clip), source).items():
        image = key.startswith("visual.")
        converted[f"encoder.tower.{key}" if image else f"text_tower.{key}"] = value
    return converted


def original_to_ours(key: str) -> str | None:
    """Our name of a tensor outside of the CLIP; None if it has none."""
    if found := _UPSAMPLING.match(key):
        return f"guidance_upsamplers.{int(found[1]) - 1}.{found[2]}"
    if not key.startswith(_AGGREGATOR):
        return None
    new = renamed_by_first(key.removeprefix(_AGGREGATOR), _RULES)
    return None if new is None else f"aggregator.{new}"


def _stack_projections(clip: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CAT-Seg keeps q, k and v of OpenAI's CLIP apart, their biases together; open_clip has one projection."""
    stacked = dict(clip)
    for key in clip:
        if found := _APART.match(key):
            parts = [f"{found[1]}.{part}_proj_weight" for part in "qkv"]
            if all(part in clip for part in parts):
                stacked[f"{found[1]}.in_proj_weight"] = torch.cat([stacked.pop(part) for part in parts])
    return stacked
