"""Small data types through which the packages meet. Imports nothing else of DenseRC."""

from .atomic import atomic_path, write_errors
from .config_keys import Key, add_keys, coerce, flatten
from .errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DenseRCError,
    FingerprintMismatchError,
    TrainingStopped,
    UnreadableImageError,
    WeightsMismatchError,
    WriteError,
    choose,
    exit_with,
)
from .files import cached_result, weights_digest, write_atomically
from .pixels import CLIP_PIXELS, IMAGENET_PIXELS, SIGLIP_PIXELS, PixelStatistics
from .vocabulary import BACKGROUND, TextEmbeddings, Vocabulary, class_names

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
    "TrainingStopped",
    "UnreadableImageError",
    "Vocabulary",
    "WeightsMismatchError",
    "WriteError",
    "add_keys",
    "atomic_path",
    "cached_result",
    "choose",
    "class_names",
    "coerce",
    "exit_with",
    "flatten",
    "weights_digest",
    "write_atomically",
    "write_errors",
]
