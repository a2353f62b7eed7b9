"""Dense features from a CLIP image tower: which values, and which module over them."""

from .checkpoint import DenseModel, Metadata, load_checkpoint, read_metadata, save_checkpoint
from .choices import CONSTRUCTIONS, Construction, GatePosition, Projection, ValueModule, ValueSource
from .config import add_encoder_config, build_dense_model, construction_from_config
from .dense import DenseEncoder
from .gating import HeadSelectionGating

__all__ = [
    "CONSTRUCTIONS",
    "Construction",
    "DenseEncoder",
    "DenseModel",
    "GatePosition",
    "HeadSelectionGating",
    "Metadata",
    "Projection",
    "ValueModule",
    "ValueSource",
    "add_encoder_config",
    "build_dense_model",
    "construction_from_config",
    "load_checkpoint",
    "read_metadata",
    "save_checkpoint",
]
