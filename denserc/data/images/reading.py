"""Reading images: JPEG, PNG or open Pillow images, with EXIF rotation, transparency, palette, CMYK, 16 bits."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ...structures import DataError

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_rgb(source: str | Path | Image.Image) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, upright.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits, and float greys are
    taken as 0..255. Of an animation the first or the current frame is read.

    Args:
        source: Path of a file, or an open Pillow image, which is not changed.

    Raises:
        DataError: The file is absent, truncated or not an image; the message names it.
    """
    if isinstance(source, Image.Image):
        try:
            return np.array(_to_rgb(ImageOps.exif_transpose(source)))
        except _UNREADABLE as error:
            name = getattr(source, "filename", "") or f"of mode {source.mode} and size {source.size} (w, h)"
            raise DataError(f"The image {name} cannot be read ({error}). Convert or open it again.") from error
    try:
        with Image.open(source) as image:
            ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies every image
            return np.array(_to_rgb(image))
    except FileNotFoundError as error:
        raise DataError(f"The image {source} does not exist.") from error
    except _UNREADABLE as error:
        raise DataError(f"The image {source} cannot be read ({error}). Download or export it again.") from error


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(h, w, 3) uint8 -> (3, h, w) uint8, contiguous: the layout of a model's input."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBa", "La"):  # premultiplied: Pillow converts these only to their plain counterparts
        image = image.convert(image.mode.upper())
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, image)
    return image if image.mode == "RGB" else image.convert("RGB")
