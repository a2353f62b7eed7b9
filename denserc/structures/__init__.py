"""Small data types through which the packages meet. Imports nothing else of DenseRC."""

from .config_keys import Key, add_keys, coerce, flatten
from .errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DenseRCError,
    FingerprintMismatchError,
    WeightsMismatchError,
    choose,
    exit_with,
)
from .files import atomic_path, cached_result, weights_digest, write_atomically
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
    "Key",
    "PixelStatistics",
    "TextEmbeddings",
    "Vocabulary",
    "WeightsMismatchError",
    "add_keys",
    "atomic_path",
    "cached_result",
    "choose",
    "coerce",
    "exit_with",
    "flatten",
    "weights_digest",
    "write_atomically",
]
