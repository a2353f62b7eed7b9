"""Construction of encoders by open_clip's names; the one place that knows which wrapper fits which tower."""

import logging
import os
from importlib.util import find_spec

import open_clip
from open_clip.coca_model import CoCa
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer as ClipVit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import nn

from ..structures import ConfigurationError, PixelStatistics
from .key_formats import require_both_towers, to_open_clip_keys
from .miniature import MINIATURE, MINIATURE_WEIGHTS, miniature_tokenizer
from .text import OpenClipText, PackagedTokenizer, open_clip_tokenizer
from .towers.base import Clip, ImageTower
from .towers.clip import ClipVitTower
from .towers.eva import EvaTower
from .towers.position import PositionResize
from .towers.siglip import SiglipTower
from .weights import load_exactly, read_weights

logger = logging.getLogger(__name__)

_EXAMPLES = (
    f"EVA-02 (EVA02-B-16, EVA02-L-14-336, {MINIATURE}), CLIP's ViT (ViT-B-16-quickgelu, ViT-L-14-quickgelu) and "
    "SigLIP (ViT-B-16-SigLIP, ViT-B-16-SigLIP2)"
)


def build_clip(
    name: str,
    weights: str = "",
    *,
    random_init: bool = False,
    position_resize: PositionResize = PositionResize.BICUBIC,
) -> Clip:
    """A CLIP by open_clip's model name.

    Args:
        name: e.g. "EVA02-B-16", "EVA02-L-14-336", or "DenseRC-Miniature".
        weights: One of open_clip's pretrained tags (downloaded and cached by open_clip, offline
            settings honoured), or a file in any `KeyFormat`. Empty means the packaged weights for
            the miniature, and nothing for all others.
        random_init: Leave the towers untrained on purpose, with a warning.
        position_resize: Resizing of learned position embeddings to other sizes.

    Raises:
        ConfigurationError: An unknown name or tag, a tower that DenseRC cannot open, or no weights.
        CheckpointError: A file that is unreadable, of an unknown format, or without one of the towers.
        WeightsMismatchError: Weights of another architecture.
    """
    _require_known(name)
    if not weights and not random_init:
        if not has_packaged_weights(name):
            tags = open_clip.list_pretrained_tags_by_model(name)
            raise ConfigurationError(
                f"No weights were given for {name}. Give a file, or one of open_clip's tags {tags}, "
                f"or ask for random weights explicitly (random_init=True)."
            )
        weights = str(MINIATURE_WEIGHTS)
    if weights and random_init:
        raise ConfigurationError(f"Both weights ({weights}) and random_init were given for {name}; choose one.")

    from_file = os.path.exists(weights)
    tag = None if from_file or not weights else weights
    if tag and tag not in open_clip.list_pretrained_tags_by_model(name):
        raise ConfigurationError(
            f"{weights!r} is neither a file nor a pretrained tag of {name}. "
            f"Its tags: {open_clip.list_pretrained_tags_by_model(name)}."
        )
    if tag and open_clip.get_pretrained_cfg(name, tag).get("quick_gelu") and not _has_quick_gelu(name):
        raise ConfigurationError(
            f"The weights {tag!r} of {name} were trained with QuickGELU; with plain GELU they lose accuracy in "
            f"silence. Use {name}-quickgelu."
        )
    model = _create(name, tag)
    if from_file:
        state = to_open_clip_keys(read_weights(weights), weights)
        require_both_towers(state, weights)
        load_exactly(model, state, weights)
    if random_init:
        logger.warning("!!! %s has RANDOM WEIGHTS, as no others were given: its features mean nothing. !!!", name)
    clip = wrap_open_clip(name, model)
    clip.image.position_resize = position_resize
    return clip


def has_packaged_weights(name: str) -> bool:
    """True if weights of this model ship with the package."""
    return name == MINIATURE


def build_architecture(name: str) -> Clip:
    """A CLIP by open_clip's model name with weights still to be loaded, for a checkpoint to fill."""
    _require_known(name)
    return wrap_open_clip(name, _create(name, None))


def wrap_open_clip(name: str, model: nn.Module) -> Clip:
    """An open_clip CustomTextCLIP behind DenseRC's contract; its modules are used as they are."""
    if isinstance(model, CoCa):
        raise ConfigurationError(
            f"{name} is a CoCa: a captioner beside the two towers, whose text tower returns more than an embedding. "
            f"DenseRC opens models of two towers alone, such as {_EXAMPLES}."
        )
    config = open_clip.get_model_config(name)
    pixels = _pixel_statistics(name, model)
    tokenizer = PackagedTokenizer(miniature_tokenizer()) if name == MINIATURE else open_clip_tokenizer(name)
    text = OpenClipText(name=name, text=model.text, tokenizer=tokenizer, embed_dim=config["embed_dim"])
    scale = float(model.logit_scale.detach().exp())
    return Clip(image=_wrap_image(name, model.visual, pixels), text=text, logit_scale=scale)


def _pixel_statistics(name: str, model: nn.Module) -> PixelStatistics:
    """Pixel statistics of the model.

    Without a tag open_clip answers CLIP's for every model, SigLIP included, so a name whose tags all agree has theirs.
    """
    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    found = {(tuple(tag["mean"]), tuple(tag["std"])) for tag in tags if tag.get("mean") and tag.get("std")}
    if len(found) == 1:
        return PixelStatistics(*found.pop())
    preprocess = open_clip.get_model_preprocess_cfg(model)
    return PixelStatistics(preprocess["mean"], preprocess["std"])


def _require_known(name: str) -> None:
    if name not in open_clip.list_models():
        raise ConfigurationError(f"open_clip knows no model {name!r}. It knows: {', '.join(open_clip.list_models())}.")


def _has_quick_gelu(name: str) -> bool:
    return bool(open_clip.get_model_config(name).get("quick_gelu"))


def _create(name: str, tag: str | None) -> nn.Module:
    """open_clip's model, always with a text tower of its own, so that all models have one key layout."""
    if open_clip.get_model_config(name)["text_cfg"].get("hf_model_name") and not find_spec("transformers"):
        raise ConfigurationError(
            f"The text tower of {name} comes from the package transformers: pip install 'denserc[siglip]'."
        )
    root = logging.getLogger()  # open_clip warns there of random weights, which we fill or warn about ourselves
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        return open_clip.create_model(name, pretrained=tag, load_weights=tag is not None, force_custom_text=True)
    finally:
        root.setLevel(level)


def _wrap_image(name: str, visual: nn.Module, pixels: PixelStatistics) -> ImageTower:
    inside = getattr(visual, "trunk", visual) if isinstance(visual, TimmModel) else visual
    for kind, tower in ((Eva, EvaTower), (ClipVit, ClipVitTower), (TimmVit, SiglipTower)):
        if isinstance(inside, kind):
            return tower(name=name, visual=visual, pixels=pixels)
    raise ConfigurationError(
        f"{name} has an image tower of type {type(inside).__name__}, which DenseRC cannot open. It opens {_EXAMPLES}."
    )
