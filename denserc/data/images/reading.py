"""Reading images as they come: JPEG or PNG, with EXIF rotation, transparency, palette, CMYK, 16 bits."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...structures import DataError

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_rgb(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, upright.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits.

    Raises:
        DataError: names the file that is absent, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies every image
            return np.array(_to_rgb(image))
    except FileNotFoundError as error:
        raise DataError(f"The image {path} does not exist.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"The image {path} cannot be read ({error}). Download or export it again.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, image)
    return image if image.mode == "RGB" else image.convert("RGB")
