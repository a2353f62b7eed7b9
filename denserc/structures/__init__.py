"""Small data types through which the packages meet. Imports nothing else of DenseRC."""

from .errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DenseRCError,
    FingerprintMismatchError,
    WeightsMismatchError,
)
from .files import written_whole
from .options import choose
from .pixels import CLIP_PIXELS, IMAGENET_PIXELS, SIGLIP_PIXELS, PixelStatistics
from .text import TextEmbeddings
from .vocabulary import BACKGROUND, Vocabulary

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
    "written_whole",
]
