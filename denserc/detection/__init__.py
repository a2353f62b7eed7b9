"""F-ViT in Detectron2: the meta-architecture, its parts, training and evaluation. Importing registers them."""

from .backbone import FViTBackbone, build_fvit_backbone
from .checkpoint import FViTCheckpointer
from .detector import load_detector
from .engine import run
from .meta_arch import FViT
from .roi_heads import FViTROIHeads
from .rpn import FViTRPN

__all__ = [
    "FViT",
    "FViTBackbone",
    "FViTCheckpointer",
    "FViTROIHeads",
    "FViTRPN",
    "build_fvit_backbone",
    "load_detector",
    "run",
]
