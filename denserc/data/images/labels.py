"""Label maps: image files with one whole number per pixel, of 8 or 16 bits."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...structures import DataError, atomic_path
from .opening import opened

_WHAT = "label file"
_EIGHT_BIT = ("L", "P")
_WIDER = ("I;16", "I;16L", "I;16B", "I;16N", "I")
# zlib's fastest level with run lengths: half the size of the default strategy at that level, for label maps.
_PNG_OPTIONS = {"compress_level": 1, "compress_type": 3}


def read_labels(path: str | Path) -> np.ndarray:
    """A label file (PNG or TIFF) -> (H, W) uint8, uint16 or int32, its numbers unchanged.

    The numbers of a palette image are its indices, not its colors. EXIF rotation is not applied: labels are compared
    with the pixels as stored.

    Raises:
        UnreadableImageError: The file is absent, damaged or too large.
        DataError: It has several channels.
    """
    with opened(path, _WHAT) as image:
        if image.mode not in _EIGHT_BIT + _WIDER:
            raise DataError(
                f"The label file {path} has mode {image.mode!r}; one channel of 8 or 16 bits was expected. "
                "Convert colors to class numbers first."
            )
        return np.array(image)


def read_rgb_labels(path: str | Path) -> np.ndarray:
    """A file whose channels encode labels (ADE20K's full set) -> (H, W, 3) uint8; errors as `read_labels`."""
    with opened(path, _WHAT) as image:
        if image.mode != "RGB":
            raise DataError(f"The label file {path} has mode {image.mode!r}; three channels were expected.")
        return np.array(image)


def label_size(path: str | Path) -> tuple[int, int]:
    """(h, w) of a label file, from only its header; errors as `read_labels`."""
    with opened(path, _WHAT) as image:
        return image.height, image.width


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write a label map whole or not at all, with the bits of its type.

    Args:
        path: File ending in ".png", ".tif" or ".tiff"; its folder is made.
        labels: (H, W) uint8 or uint16.

    Raises:
        DataError: Another shape or type.
    """
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"A label map must be (H, W) uint8 or uint16; got {labels.shape} {labels.dtype}.")
    options = _PNG_OPTIONS if Path(path).suffix == ".png" else {"compression": "tiff_deflate"}
    with atomic_path(path) as partial:
        Image.fromarray(np.ascontiguousarray(labels)).save(partial, **options)
