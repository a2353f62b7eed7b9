"""Image towers, text towers and foundation models; open_clip and timm build them, one contract opens them."""

from .build import build_architecture, build_clip, has_packaged_weights, wrap_open_clip
from .foundation import build_foundation_model, register_foundation_model
from .key_formats import to_open_clip_keys
from .towers.base import Clip, FoundationModel, ImageTower, TextTower, TokenStream, attention, merge_heads
from .towers.position import PositionResize
from .weights import load_exactly, read_weights

__all__ = [
    "Clip",
    "FoundationModel",
    "ImageTower",
    "PositionResize",
    "TextTower",
    "TokenStream",
    "attention",
    "build_architecture",
    "build_clip",
    "build_foundation_model",
    "has_packaged_weights",
    "load_exactly",
    "merge_heads",
    "read_weights",
    "register_foundation_model",
    "to_open_clip_keys",
    "wrap_open_clip",
]
