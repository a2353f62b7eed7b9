"""Dense features from a CLIP image tower: the choice of values, and of the module over them."""

from .checkpoint import DenseModel, Metadata, load_checkpoint, read_metadata, save_checkpoint
from .choices import CONSTRUCTIONS, Construction, GatePosition, Projection, ValueModule, ValueSource
from .config import add_encoder_config, build_dense_model, construction_from_config
from .dense import DenseEncoder
from .gating import HeadSelectionGating
from .gradient_checkpointing import GradientCheckpointing, checkpointing_that_fits, kept_bytes, run_block

__all__ = [
    "CONSTRUCTIONS",
    "Construction",
    "DenseEncoder",
    "DenseModel",
    "GatePosition",
    "GradientCheckpointing",
    "HeadSelectionGating",
    "Metadata",
    "Projection",
    "ValueModule",
    "ValueSource",
    "add_encoder_config",
    "build_dense_model",
    "checkpointing_that_fits",
    "construction_from_config",
    "kept_bytes",
    "load_checkpoint",
    "read_metadata",
    "run_block",
    "save_checkpoint",
]
