"""DINOv2 and DINOv3 through timm, from timm's or the original's weights files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import timm
import torch
from torch import nn

from ..structures import IMAGENET_PIXELS, PixelStatistics
from .contract import FoundationModel, require_multiple
from .weights import StateDict, load_exactly, read_weights


@dataclass(frozen=True)
class TimmChoice:
    """A foundation model as timm knows it.

    Args:
        timm_name: timm's architecture name.
        tag: timm's pretrained tag.
        layer: which block's output, from the end. DINOv3's last is over-smoothed, so the paper
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
    """A timm ViT whose normalised patch tokens of one block are the features.

    Args:
        name: how it was asked for.
        model: a timm ViT without classifier that takes inputs of any size its patch size divides.
        layer: the block, from the end (-1 is the last).
        pixels: how it wants its input normalised.
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
        name: the key.
        weights: a file in timm's names, or in facebookresearch's for DINOv2 (dinov2_vitb14_pretrain.pth);
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
    """DINOv2's original names as timm's; timm's are left alone.

    The mark is "mask_token", which masks patches in pre-training and is used nowhere else: it alone is dropped.
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
