"""Frozen vision foundation models for L_coherence: timm's DINO family, a training-free substitute, and a registry."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import timm
import torch
from torch import nn
from torch.nn import functional as F

from ..structures import IMAGENET_PIXELS, ConfigurationError, PixelStatistics
from .towers.base import FoundationModel, require_multiple
from .weights import StateDict, load_exactly, read_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimmChoice:
    """A foundation model as timm knows it.

    Args:
        timm_name: Architecture name in timm.
        tag: Pretrained tag in timm.
        layer: Block whose output is used, from the end. DINOv3's last is over-smoothed, so the paper
            takes its penultimate one (supplement, section 9).
    """

    timm_name: str
    tag: str
    layer: int = -1


TIMM_MODELS = {
    "dinov2_vits14": TimmChoice("vit_small_patch14_dinov2", "lvd142m"),
    "dinov2_vitb14": TimmChoice("vit_base_patch14_dinov2", "lvd142m"),
    "dinov2_vitl14": TimmChoice("vit_large_patch14_dinov2", "lvd142m"),
    "dinov2_vits14_reg": TimmChoice("vit_small_patch14_reg4_dinov2", "lvd142m"),
    "dinov2_vitb14_reg": TimmChoice("vit_base_patch14_reg4_dinov2", "lvd142m"),
    "dinov2_vitl14_reg": TimmChoice("vit_large_patch14_reg4_dinov2", "lvd142m"),
    "dinov3_vits16": TimmChoice("vit_small_patch16_dinov3", "lvd1689m", layer=-2),
    "dinov3_vitb16": TimmChoice("vit_base_patch16_dinov3", "lvd1689m", layer=-2),
    "dinov3_vitl16": TimmChoice("vit_large_patch16_dinov3", "lvd1689m", layer=-2),
}


class TimmFoundationModel(FoundationModel):
    """A timm ViT whose normalized patch tokens of one block are the features.

    Args:
        name: Requested name of the model.
        model: A timm ViT without classifier that takes inputs of any size its patch size divides.
        layer: Index of the block, from the end (-1 is the last).
        pixels: Normalization of its input.
    """

    def __init__(self, *, name: str, model: nn.Module, layer: int, pixels: PixelStatistics):
        super().__init__()
        self.name = name
        self.model = model
        self.layer = layer
        self.pixels = pixels
        self.patch_size = model.patch_embed.patch_size[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_multiple(self, images)
        index = len(self.model.blocks) + self.layer
        (features,) = self.model.forward_intermediates(
            images, indices=[index], norm=True, intermediates_only=True, output_fmt="NCHW"
        )
        return features  # (B, C, h, w)


def build_timm(name: str, weights: str) -> TimmFoundationModel:
    """One of `TIMM_MODELS`.

    Args:
        name: Key of TIMM_MODELS.
        weights: A file in timm's names, or in facebookresearch's for DINOv2 (dinov2_vitb14_pretrain.pth);
            "timm" for timm's own download and cache; empty for random weights.
    """
    choice = TIMM_MODELS[name]
    download = weights == "timm" and not os.path.exists(weights)
    timm_name = f"{choice.timm_name}.{choice.tag}" if download else choice.timm_name
    model = timm.create_model(timm_name, pretrained=download, num_classes=0, dynamic_img_size=True)
    if weights and not download:
        load_exactly(model, to_timm_keys(read_weights(weights)), weights)
    return TimmFoundationModel(name=name, model=model, layer=choice.layer, pixels=IMAGENET_PIXELS)


def to_timm_keys(state: Mapping[str, torch.Tensor]) -> StateDict:
    """DINOv2's original names as timm's; timm's remain.

    The mark is "mask_token", which masks patches in pre-training and is used nowhere else: no other key is dropped.
    timm adds no position to register tokens and keeps none for the class token, so where there are registers the
    class token takes the first row of the position embedding.
    """
    state = dict(state)
    if state.pop("mask_token", None) is None:
        return state
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
        positions = state["pos_embed"]  # (1, 1 + N, D)
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["pos_embed"] = positions[:, 1:].clone()
    return state


# A builder takes the name and the weights as given (a path or a word of its own; "" = random weights).
FoundationBuilder = Callable[[str, str], FoundationModel]
_BUILDERS: dict[str, FoundationBuilder] = dict.fromkeys(TIMM_MODELS, build_timm)
_COLOR_TEXTURE = re.compile(r"^colour_texture_p(\d+)$")


class ColorTexture(FoundationModel):
    """Not a foundation model: color and texture statistics per patch, no training, no weights.

    It replaces DINOv2 where no weights are available. Per patch: mean and deviation of each
    color channel, and a magnitude-weighted histogram of gradient orientations. Each of these
    channels is standardized over the image, so that correlations separate similar patches from
    different ones, and color is given the weight of all texture channels together. It knows no
    objects and knows nothing of semantics.

    Args:
        patch_size: Side of a patch in pixels.
        orientations: Bins of the gradient histogram over half a turn.
    """

    pixels = PixelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self, *, patch_size: int, orientations: int = 6):
        super().__init__()
        self.name = f"colour_texture_p{patch_size}"
        self.patch_size = patch_size
        self.orientations = orientations
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        self.register_buffer("sobel", torch.stack([sobel, sobel.T])[:, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_multiple(self, images)
        mean = F.avg_pool2d(images, self.patch_size)  # (B, 3, h, w)
        deviation = (F.avg_pool2d(images**2, self.patch_size) - mean**2).clamp_min(0).sqrt()
        grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        dx, dy = F.conv2d(grey, self.sobel.to(grey)).unbind(1)  # (B, H, W) each
        bins = torch.atan2(dy, dx).remainder(torch.pi) * (self.orientations / torch.pi)
        nearest = bins.floor().long().clamp_max(self.orientations - 1)
        weighted = F.one_hot(nearest, self.orientations).movedim(-1, 1) * torch.hypot(dx, dy)[:, None]
        features = torch.cat([mean, deviation, F.avg_pool2d(weighted, self.patch_size)], dim=1)
        centered = features - features.mean((2, 3), keepdim=True)
        features = centered / (centered.square().mean((2, 3), keepdim=True).sqrt() + 1e-4)
        features[:, :3] *= (1 + self.orientations / 3) ** 0.5
        return features  # (B, 6 + orientations, h, w)


def register_foundation_model(name: str, builder: FoundationBuilder) -> None:
    """Make a foundation model of your own known as DISTILL.FOUNDATION.NAME.

    Call it before the configuration is used, in every process (see docs/ENCODERS.md).

    Args:
        name: Name that is not taken yet.
        builder: (name, weights) -> `FoundationModel`; the weights are the configured ones, "" for random
            ones. It is frozen and set to evaluation mode by the caller.

    Raises:
        ConfigurationError: The name is taken.
    """
    if name in _BUILDERS or _COLOR_TEXTURE.match(name):
        raise ConfigurationError(f"The foundation model {name!r} exists already; choose another name.")
    _BUILDERS[name] = builder


def build_foundation_model(name: str, weights: str = "", *, random_init: bool = False) -> FoundationModel:
    """Build a frozen foundation model by name.

    Args:
        name: One of `TIMM_MODELS`, a registered one, or "colour_texture_p<patch size>" for the substitute without
            training.
        weights: A file, or "timm" for timm's own download and cache.
        random_init: Leave it untrained on purpose, with a warning.

    Raises:
        ConfigurationError: An unknown name, no weights, or a builder that gives no foundation model.
        CheckpointError, WeightsMismatchError: A file that is unreadable or of another model.
    """
    stand_in = _COLOR_TEXTURE.match(name)
    if stand_in:
        return ColorTexture(patch_size=int(stand_in[1])).eval()
    if name not in _BUILDERS:
        raise ConfigurationError(
            f"Unknown foundation model {name!r}. Known: {', '.join(_BUILDERS)}, and "
            f"colour_texture_p<patch size> (training-free stand-in). Others: register_foundation_model."
        )
    if bool(weights) == random_init:
        raise ConfigurationError(
            f"{name} needs either weights (a file, or 'timm' for timm's own download) or random_init; "
            f"got weights={weights!r}, random_init={random_init}."
        )
    model = _BUILDERS[name](name, weights)
    if not isinstance(model, FoundationModel):
        raise ConfigurationError(
            f"The builder registered as {name!r} gave a {type(model).__name__}, not a FoundationModel."
        )
    if random_init:
        logger.warning("!!! %s has RANDOM WEIGHTS, as no others were given: its correlations mean nothing. !!!", name)
    return model.eval().requires_grad_(False)
