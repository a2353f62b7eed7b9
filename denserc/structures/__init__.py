"""Small data types through which the packages meet. Imports nothing else of DenseRC."""

from .errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DenseRCError,
    FingerprintMismatchError,
    WeightsMismatchError,
    choose,
)
from .files import kept, weights_digest, write_atomically, written_whole
from .pixels import CLIP_PIXELS, IMAGENET_PIXELS, SIGLIP_PIXELS, PixelStatistics
from .vocabulary import BACKGROUND, TextEmbeddings, Vocabulary

__all__ = [
    "BACKGROUND",
    "CLIP_PIXELS",
    "IMAGENET_PIXELS",
    "SIGLIP_PIXELS",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DenseRCError",
    "FingerprintMismatchError",
    "PixelStatistics",
    "TextEmbeddings",
    "Vocabulary",
    "WeightsMismatchError",
    "choose",
    "kept",
    "weights_digest",
    "write_atomically",
    "written_whole",
]
