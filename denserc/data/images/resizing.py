"""Images and crops as squares, the geometry that distillation and evaluation share.

Pixels are (h, w, 3) uint8 RGB, as an array or as a Pillow image; sizes are (h, w) unless they are Pillow's.
"""

from collections.abc import Sequence
from enum import Enum

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


class BicubicKernel(Enum):
    """Whose bicubic, antialiased resizing of uint8 pixels."""

    PILLOW = "pillow"  # CLIPSelf's and DeCLIP's pixels
    TORCHVISION = "torchvision_uint8"  # the kernel behind torchvision's: several times as fast, 0.4% of values differ


def resize(
    image: Image.Image | np.ndarray, size: tuple[int, int], resampling: BicubicKernel = BicubicKernel.PILLOW
) -> np.ndarray:
    """An RGB image at another size (h, w), in memory row by row: (h, w, 3) uint8.

    On photographs the two ways differ by 1 of 255 in 0.4% of the values, and by 2 in 4 of a million.
    """
    if resampling is BicubicKernel.PILLOW:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        # Columns, then rows, in two calls: Pillow 13 resizes the rows first where much height is lost, to other pixels
        # (it rounds in between); the Pillow of CLIPSelf's time never did. One call is these two passes too.
        columns = picture.resize((size[1], picture.height), Image.Resampling.BICUBIC)
        return np.asarray(columns.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.uint8)
    return _interpolate(torch.from_numpy(np.require(image, np.uint8, ["C", "W"]))[None], size)[0]


def resize_all(images: Sequence[np.ndarray], size: tuple[int, int], resampling: BicubicKernel) -> np.ndarray:
    """`resize` of K images: (K, h, w, 3) uint8. Torchvision's way takes those of one shape (a grid's cells) at once."""
    resized = np.empty((len(images), *size, 3), dtype=np.uint8)
    if resampling is BicubicKernel.PILLOW:
        for place, image in zip(resized, images, strict=True):
            place[:] = resize(image, size, resampling)
        return resized
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        alike.setdefault(image.shape, []).append(index)
    for indices in alike.values():
        resized[indices] = _interpolate(torch.from_numpy(np.stack([images[index] for index in indices])), size)
    return resized


def _interpolate(pixels: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """(K, h, w, 3) uint8 -> (K, *size, 3), both row by row.

    Channels last is the layout that the kernel reads without repacking, and it writes what it reads; it informs the
    layout by the strides, so one image must have a batch's (NumPy's `[None]` gives a stride of 0).
    """
    resized = F.interpolate(pixels.permute(0, 3, 1, 2), size=tuple(size), mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).numpy()


def fitted(sizes: torch.Tensor, side: int) -> torch.Tensor:
    """Sizes (..., 2) with the longest side at `side`, the aspect kept to the pixel, no side below one: int64."""
    scale = side / sizes.double().amax(dim=-1, keepdim=True)
    return (sizes * scale).round().long().clamp(1, side)


def resize_longest(
    image: Image.Image | np.ndarray, side: int, resampling: BicubicKernel = BicubicKernel.PILLOW
) -> np.ndarray:
    """Longest side -> `side`, the aspect kept to the pixel, no side below one pixel: (h, w, 3) uint8."""
    given = image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]
    size = tuple(fitted(torch.tensor(given), side).tolist())
    return np.asarray(image, dtype=np.uint8) if size == tuple(given) else resize(image, size, resampling)


def corner_square(
    image: Image.Image | np.ndarray, side: int, resampling: BicubicKernel = BicubicKernel.PILLOW
) -> np.ndarray:
    """Longest side at `side`, black to the right and below: (side, side, 3) uint8. CLIPSelf's whole images."""
    return _on_black(resize_longest(image, side, resampling), side, share=0)


def centered_square(
    image: Image.Image | np.ndarray, side: int, resampling: BicubicKernel = BicubicKernel.PILLOW
) -> np.ndarray:
    """Longest side at `side`, black around: (side, side, 3) uint8. CLIPSelf's crops; an odd rest goes after."""
    return _on_black(resize_longest(image, side, resampling), side, share=0.5)


def _on_black(content: np.ndarray, side: int, *, share: float) -> np.ndarray:
    height, width = content.shape[:2]
    square = np.zeros((side, side, 3), dtype=np.uint8)
    top, left = int((side - height) * share), int((side - width) * share)
    square[top : top + height, left : left + width] = content
    return square
