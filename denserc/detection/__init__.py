"""F-ViT in Detectron2: the meta-architecture, its parts, training and evaluation. Importing registers them."""

from ..openvocab.checkpoint import ModelCheckpointer
from .engine import run
from .modeling.backbone import FViTBackbone, build_fvit_backbone
from .modeling.meta_arch import FViT
from .modeling.roi_heads import FViTROIHeads
from .modeling.rpn import FViTRPN
from .predictor import load_detector

__all__ = [
    "FViT",
    "FViTBackbone",
    "ModelCheckpointer",
    "FViTROIHeads",
    "FViTRPN",
    "build_fvit_backbone",
    "load_detector",
    "run",
]
