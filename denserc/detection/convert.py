"""Conversion of MMDetection F-ViT's weights to checkpoints of ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ..encoders import load_exactly, to_open_clip_keys
from ..encoders.key_formats import DERIVED, Renames, renamed_by_first
from ..structures import CheckpointError, WeightsMismatchError
from .modeling.meta_arch import FViT

_RULES: Renames = (
    (r"^backbone\.interpolate1\.", "backbone.upsampler.branches.0."),
    (r"^backbone\.interpolate2\.0\.", "backbone.upsampler.branches.1."),
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"backbone.pyramid.laterals.\1.0."),
    (r"^neck\.lateral_convs\.(\d+)\.bn\.", r"backbone.pyramid.laterals.\1.1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"backbone.pyramid.outputs.\1.0."),
    (r"^neck\.fpn_convs\.(\d+)\.bn\.", r"backbone.pyramid.outputs.\1.1."),
    (r"^rpn_head\.rpn_conv\.(\d+)\.conv\.", r"proposal_generator.head.convs.\1.conv."),
    (r"^rpn_head\.rpn_conv\.(\d+)\.bn\.", r"proposal_generator.head.convs.\1.norm."),
    (r"^rpn_head\.rpn_cls\.", "proposal_generator.head.objectness."),
    (r"^rpn_head\.rpn_reg\.", "proposal_generator.head.deltas."),
    (r"^roi_head\.bbox_head\.shared_convs\.(\d+)\.conv\.", r"roi_heads.box_head.convs.\1.conv."),
    (r"^roi_head\.bbox_head\.shared_convs\.(\d+)\.bn\.", r"roi_heads.box_head.convs.\1.norm."),
    (r"^roi_head\.bbox_head\.shared_fcs\.", "roi_heads.box_head.fcs."),
    (r"^roi_head\.bbox_head\.cls_fcs\.0\.", "roi_heads.box_head.class_fc."),
    (r"^roi_head\.bbox_head\.reg_fcs\.0\.", "roi_heads.box_head.box_fc."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "roi_heads.box_head.deltas."),
    (r"^roi_head\.bbox_head\.detect_temperature$", "roi_heads.classifier.temperature"),
    (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"roi_heads.mask_head.convs.\1.conv."),
    (r"^roi_head\.mask_head\.convs\.(\d+)\.bn\.", r"roi_heads.mask_head.convs.\1.norm."),
    (r"^roi_head\.mask_head\.upsample\.", "roi_heads.mask_head.upsample."),
    (r"^roi_head\.mask_head\.conv_logits\.", "roi_heads.mask_head.logits."),
)
# Computed from the architecture, or never used by MMDetection F-ViT's forward.
_DROPPED = re.compile(rf"{DERIVED.pattern}|^roi_head\.bbox_head\.fc_cls\.")
_EMBEDDINGS = "roi_head.bbox_head.all_embeddings"
_VISUAL, _OUR_VISUAL = "backbone.visual.", "backbone.encoder.tower.visual."
_MARKS = ("roi_head.bbox_head.detect_temperature", "backbone.visual.blocks.0.norm1.weight")  # of every F-ViT over EVA


@dataclass(frozen=True)
class ConvertedDetector:
    """Result of converting a published file.

    Args:
        model: Model with all weights, in eval mode; its vocabulary is not set yet.
        class_vectors: (C + 1, E) the file's text embeddings, background last; the file does not name the classes.
        dropped: Keys that are left out on purpose: tables that follow from the architecture, and a layer that
            MMDetection F-ViT never uses.
        changed: Names of the image tower's tensors that differ from those of the CLIP whose text tower was taken:
            none for plain CLIP, most of them after a distillation.
        tower_size: Number of tensors of the image tower.
    """

    model: FViT
    class_vectors: torch.Tensor
    dropped: tuple[str, ...]
    changed: tuple[str, ...]
    tower_size: int


def convert_detector(state: Mapping[str, torch.Tensor], cfg: CfgNode, source: str) -> ConvertedDetector:
    """Convert a published detector exactly, or raise.

    Args:
        state: The "state_dict" of a published file.
        cfg: Configuration of the detector. MODEL.ENCODER names the CLIP whose text tower is taken, as the published
            files hold only the image tower; MODEL.CONSTRUCTION names the dense features of the file's image tower.
        source: Name of the file in errors.

    Raises:
        CheckpointError: The file is not an MMDetection F-ViT.
        WeightsMismatchError: It has another size or configuration; the message has the full lists of keys.
    """
    converted, class_vectors = from_mmdetection(state, source)
    build = cfg.clone()
    build.defrost()
    build.MODEL.WEIGHTS, build.MODEL.DEVICE = "", "cpu"
    build.DATASETS.TRAIN = build.DATASETS.TEST = ()  # they need not exist here
    model = build_model(build)
    tower = model.backbone.encoder.tower.visual.state_dict()
    changed = tuple(
        key for key, value in tower.items() if not _equal(value, converted.get(f"{_OUR_VISUAL}{key}", value))
    )
    text = {key: value for key, value in model.state_dict().items() if key.startswith("text_tower.")}
    advice = "Give the configuration that this detector was trained with (--config), and its CLIP (--clip)."
    load_exactly(model, {**converted, **text}, source, advice)
    if class_vectors.shape[1] != model.backbone.encoder.embed_dim:
        raise CheckpointError(
            f"{source} holds text embeddings of width {class_vectors.shape[1]}, its image tower gives "
            f"{model.backbone.encoder.embed_dim}."
        )
    return ConvertedDetector(
        model=model.eval(),
        class_vectors=class_vectors,
        dropped=tuple(key for key in state if _DROPPED.search(key)),
        changed=changed,
        tower_size=len(tower),
    )


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b.to(a.dtype))


def from_mmdetection(
    state: Mapping[str, torch.Tensor], source: str = "this file"
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rename a published detector's state dict to our names.

    Args:
        state: The "state_dict" of a published file.
        source: Name of the file in errors.

    Returns:
        Our state dict of the trained parts and the image tower, without the text tower, which the published files do
        not have; and the classes' text embeddings (C + 1, E), background last. Which classes they are, and which of
        them are novel, is known only from the class lists beside the file.

    Raises:
        CheckpointError: No F-ViT over EVA-CLIP, or (WeightsMismatchError) one with keys that no published one has.
    """
    if not any(mark in state for mark in _MARKS):
        raise CheckpointError(
            f"{source} is no F-ViT of the original over EVA-CLIP: it has neither {' nor '.join(_MARKS)}. Its first "
            f"keys are {sorted(state)[:8]}."
        )
    visual = {
        key.removeprefix("backbone."): value
        for key, value in state.items()
        if key.startswith(_VISUAL) and not _DROPPED.search(key)
    }
    tower = to_open_clip_keys(visual, source) if visual else {}
    converted = {_OUR_VISUAL + key.removeprefix("visual."): value for key, value in tower.items()}
    unknown = []
    for key, value in state.items():
        if key.startswith(_VISUAL) or _DROPPED.search(key) or key == _EMBEDDINGS:
            continue
        new = original_to_ours(key)
        if new is None:
            unknown.append(key)
        else:
            converted[new] = value
    if unknown or _EMBEDDINGS not in state:
        missing = [] if _EMBEDDINGS in state else [_EMBEDDINGS]
        raise WeightsMismatchError(source, missing, unexpected=unknown, advice="It is no F-ViT as it was published.")
    return converted, state[_EMBEDDINGS].t().contiguous()


def original_to_ours(key: str) -> str | None:
    """Our name of a trained parameter or buffer of MMDetection F-ViT; None if it has none."""
    return renamed_by_first(key, _RULES)
