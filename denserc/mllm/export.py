"""Vision towers from a DenseRC checkpoint, as folders of Hugging Face's transformers."""

import logging
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, CLIPVisionModel, LlavaImageProcessor, PreTrainedModel

from ..construction import DenseEncoder, load_checkpoint
from ..structures import CheckpointError, ConfigurationError, choose
from ..structures.atomic import written_by_others
from .clip_vision import clip_vision_model, reasons_against
from .configuration import DenseRCVisionConfig, VisionFeature
from .fingerprint import fingerprints
from .vision_tower import DenseRCVisionModel

logger = logging.getLogger(__name__)

_ENTRIES = {"encoder", "construction", "feature", "layer", "reason", "pixel_mean", "pixel_std", "fingerprints"}
VisionTower = DenseRCVisionModel | CLIPVisionModel
LAST_BLOCK_NOTE = (
    "Use hidden_states[-2] (LLaVA's mm_vision_select_layer -2) without the class token. The output of the last block "
    "and the pooled output mean nothing after a distillation, which trains the values of that block only."
)


def tower_config(
    encoder: DenseEncoder, feature: VisionFeature | str, image_size: int | None = None
) -> DenseRCVisionConfig:
    """Configuration of an encoder as a vision tower, with the fingerprints of its weights.

    Args:
        encoder: Encoder with its weights, float32.
        feature: Output that enters the projector.
        image_size: Side in pixels of the square input; the size that the CLIP was trained with if None.

    Raises:
        ConfigurationError: Unknown feature, or a size that is not a multiple of the patch size.
    """
    feature, tower = choose(VisionFeature, feature, "feature of the vision tower"), encoder.tower
    return DenseRCVisionConfig(
        encoder=tower.name,
        construction=encoder.construction.to_dict(),
        feature=feature.value,
        layer=feature.layer(tower.depth),
        reason=feature.reason,
        hidden_size=feature.channels(encoder),
        image_size=tower.native_size if image_size is None else image_size,
        patch_size=tower.patch_size,
        pixel_mean=list(tower.pixels.mean),
        pixel_std=list(tower.pixels.std),
        position_resize=tower.position_resize.value,
        fingerprints=fingerprints(encoder),
    )


def build_vision_tower(
    checkpoint: str | Path,
    feature: VisionFeature | str = VisionFeature.PENULTIMATE,
    *,
    image_size: int | None = None,
    plain: bool = False,
) -> VisionTower:
    """The vision tower of a checkpoint, float32, on the CPU, frozen.

    Args:
        checkpoint: denserc.safetensors.
        feature: Output that enters the projector.
        image_size: Side in pixels of the square input; the size that the CLIP was trained with if None.
        plain: Whether to build transformers' own CLIPVisionModel, for OpenAI towers with "penultimate".

    Raises:
        CheckpointError: The file is absent or is not a DenseRC checkpoint.
        ConfigurationError: An illegal feature or size, or a tower that is not a CLIPVisionModel.
    """
    encoder = load_checkpoint(checkpoint).encoder.float().eval()
    config = tower_config(encoder, feature, image_size)
    if not plain:
        return DenseRCVisionModel(config, encoder)
    if config.feature != VisionFeature.PENULTIMATE.value:
        raise ConfigurationError(
            f"A plain CLIPVisionModel has the feature 'penultimate' only; {config.feature!r} was asked for. Leave "
            "--plain out."
        )
    model = clip_vision_model(encoder.tower, config.image_size)
    # Kept in config.json; transformers itself ignores it.
    model.config.denserc = {
        "encoder": config.encoder,
        "construction": config.construction,
        "feature": config.feature,
        "layer": config.layer,
        "reason": config.reason,
        "note": LAST_BLOCK_NOTE,
        "pixel_mean": config.pixel_mean,
        "pixel_std": config.pixel_std,
        "fingerprints": fingerprints(model),
    }
    return model


def build_image_processor(tower: VisionTower, *, pad: bool = True) -> LlavaImageProcessor | CLIPImageProcessor:
    """The image processor of a tower.

    Args:
        tower: Result of `build_vision_tower`.
        pad: LLaVA's own processor, which pads to a square with the mean; False: CLIP's, which crops the center.
    """
    metadata, side = tower_metadata(tower), tower.config.image_size
    return (LlavaImageProcessor if pad else CLIPImageProcessor)(
        **({"do_pad": True} if pad else {}),
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(metadata["pixel_mean"]),
        image_std=list(metadata["pixel_std"]),
    )


def export_vision_tower(
    checkpoint: str | Path,
    output: str | Path,
    *,
    feature: VisionFeature | str = VisionFeature.PENULTIMATE,
    image_size: int | None = None,
    plain: bool | None = None,
) -> VisionTower:
    """Write a vision tower as a folder for `from_pretrained`: config.json, model.safetensors, preprocessor_config.json.

    Args:
        checkpoint: denserc.safetensors.
        output: Folder, created if absent.
        feature: Output that enters the projector.
        image_size: Side in pixels of the square input; the size that the CLIP was trained with if None.
        plain: Whether to write transformers' CLIPVisionModel; None: for OpenAI towers with "penultimate".

    Returns:
        The tower that was written.
    """
    if plain is None:
        plain = choose(VisionFeature, feature, "--feature") is VisionFeature.PENULTIMATE
        plain = plain and not reasons_against(load_checkpoint(checkpoint).encoder.tower)
    tower = build_vision_tower(checkpoint, feature, image_size=image_size, plain=plain)
    log_tower(tower)
    with written_by_others(output):
        tower.save_pretrained(output, state_dict=published_state(tower))
        # LLaVA's own code pads by itself and reads CLIP's processor.
        build_image_processor(tower, pad=not plain).save_pretrained(output)
    return tower


def published_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights of a tower, or of a model with one, in the names that other readers know.

    transformers 5 dropped the prefix "vision_model" of a CLIPVisionModel and reads both; LLaVA's own code and others
    read only the names with it.
    """
    plain = [name for name, module in model.named_modules() if isinstance(module, CLIPVisionModel)]
    starts = tuple(f"{name}." if name else "" for name in plain)
    state = {}
    for key, value in model.state_dict().items():
        start = next((start for start in starts if key.startswith(start)), None)
        state[key if start is None else f"{start}vision_model.{key.removeprefix(start)}"] = value
    return state


def tower_metadata(tower: VisionTower) -> dict:
    """Encoder, construction, feature, layer, pixel statistics and fingerprints of a tower, from its config.json.

    Raises:
        CheckpointError: An entry is missing.
    """
    plain = isinstance(tower, CLIPVisionModel)
    found = getattr(tower.config, "denserc", None) if plain else tower.config.to_dict()
    missing = sorted(_ENTRIES - found.keys()) if isinstance(found, dict) else sorted(_ENTRIES)
    if missing:
        raise CheckpointError(
            f"The configuration of the vision tower (config.json in {tower.config.name_or_path!r}) lacks {missing}. "
            "Write the folder again by `denserc export vision-tower` or `denserc export llava`."
        )
    return dict(found)


def feature_selection(tower: VisionTower) -> dict[str, int | str]:
    """Settings of LlavaConfig that take the right entry of the tower's hidden states."""
    plain = isinstance(tower, CLIPVisionModel)
    return {
        "vision_feature_layer": -2 if plain else -1,
        "vision_feature_select_strategy": "default" if plain else "full",
    }


def log_tower(tower: VisionTower) -> None:
    """Log what a tower hands out, and why."""
    metadata, config = tower_metadata(tower), tower.config
    layer = "" if metadata["layer"] is None else f" (after block {metadata['layer']}, counted from 0)"
    logger.info(
        "vision tower %s as %s: feature %s%s, %d tokens of %d channels at %d pixels; pixel mean %s, std %s. %s",
        metadata["encoder"],
        config.model_type,
        metadata["feature"],
        layer,
        (config.image_size // config.patch_size) ** 2,
        config.hidden_size,
        config.image_size,
        metadata["pixel_mean"],
        metadata["pixel_std"],
        " ".join(filter(None, [metadata["reason"], metadata.get("note")])),
    )
