"""Reading images: JPEG, PNG or open Pillow images, with EXIF rotation, transparency, palette, CMYK, 16 bits, floats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ...structures import DataError, UnreadableImageError
from .opening import MAX_PIXELS, opened, require_size

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # mode I of these, where Pillow gives it, is of 16 bits
_AT_ONCE = 2**24  # pixels; a larger image is converted in strips, so that conversions take little memory


def read_rgb(source: str | Path | Image.Image, *, upright: bool = True, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB.

    Transparency is laid over white, and 16-bit greys are scaled to 8 bits. Greys of 32 bits are 0..255 or 0..65535, and
    float greys 0..1 or 0..255; other values are refused. Of an animation the first or the current frame is read.

    Args:
        source: Path of a file, or an open Pillow image, which is not changed.
        upright: True to apply EXIF orientation, False for the pixels as they are stored.
        max_pixels: Most pixels of an image that is read.

    Raises:
        UnreadableImageError: The file is absent, truncated, too large or not an image; the message names it.
    """
    if not isinstance(source, Image.Image):
        with opened(source, max_pixels=max_pixels) as image:
            if upright:
                ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies every image
            return _pixels(image, str(source))
    name = getattr(source, "filename", "") or f"of mode {source.mode} and size {source.size} (w, h)"
    require_size(source.size, "image", name, max_pixels=max_pixels)
    try:
        return _pixels(ImageOps.exif_transpose(source) if upright else source, name)
    except DataError:
        raise
    except Exception as error:  # as in `opened`: an open image may not be decoded yet
        raise UnreadableImageError(f"The image {name} cannot be read ({error}). Convert or open it again.") from error


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(h, w, 3) uint8 -> (3, h, w) uint8, contiguous: the layout of a model's input."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    """An upright image of any mode -> (H, W, 3) uint8 RGB."""
    if image.mode in ("I", "F"):
        return _grey(image, _eight_bits(image, name))
    if image.mode in _SIXTEEN_BIT:
        return _grey(image, lambda values: (values >> 8).astype(np.uint8))
    if image.width * image.height <= _AT_ONCE:
        return np.array(_to_rgb(image))
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows in _strips(image):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        pixels[rows] = np.asarray(_to_rgb(strip))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBa", "La"):  # premultiplied: Pillow converts these only to their plain counterparts
        image = image.convert(image.mode.upper())
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image, eight_bits: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """One channel of more than 8 bits -> (H, W, 3) uint8."""
    values = np.asarray(image)
    pixels = np.empty((*values.shape, 3), dtype=np.uint8)
    for rows in _strips(image):
        pixels[rows] = eight_bits(values[rows])[..., None]
    return pixels


def _eight_bits(image: Image.Image, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The scaling of an image of mode I or F, by the range of its values.

    Raises:
        UnreadableImageError: The values are not finite, or in no known range.
    """
    values = np.asarray(image)
    low, high = values.min().item(), values.max().item()  # NaN if any value is
    if image.mode == "F" and 0 <= low and high <= 1:
        return lambda strip: np.rint(strip * np.float32(255)).astype(np.uint8)
    if 0 <= low and high <= 255 and image.format not in _SIXTEEN_BIT_FORMATS:
        return lambda strip: strip.astype(np.uint8)
    if image.mode == "I" and 0 <= low and high <= 65535:
        return lambda strip: (strip >> 8).astype(np.uint8)
    legal = "0..1 or 0..255" if image.mode == "F" else "0..255 or 0..65535"
    raise UnreadableImageError(
        f"The image {name} has one channel with values from {low:g} to {high:g}; expected are {legal}. Scale them to "
        "8 bits first.",
        name,
    )


def _strips(image: Image.Image) -> list[slice]:
    """Rows of at most _AT_ONCE pixels, at least one."""
    step = max(1, _AT_ONCE // image.width)
    return [slice(top, min(top + step, image.height)) for top in range(0, image.height, step)]
