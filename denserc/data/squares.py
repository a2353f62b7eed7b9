"""Images and crops as squares, the geometry that distillation and evaluation share.

Pillow resizes (bicubic, antialiased): its pixels are the originals' pixels. Sizes of Pillow's images are (w, h).
"""

import numpy as np
from PIL import Image


def resize_longest(image: Image.Image, side: int) -> Image.Image:
    """Longest side -> `side`, the aspect kept to the pixel, no side below one pixel."""
    scale = side / max(image.size)
    resized = tuple(min(side, max(1, round(length * scale))) for length in image.size)
    return image if resized == image.size else image.resize(resized, Image.Resampling.BICUBIC)


def corner_square(image: Image.Image, side: int) -> np.ndarray:
    """RGB, longest side at `side`, black to the right and below: (side, side, 3) uint8. CLIPSelf's whole images."""
    return _on_black(image, side, share=0)


def centred_square(image: Image.Image, side: int) -> np.ndarray:
    """RGB, longest side at `side`, black around: (side, side, 3) uint8. CLIPSelf's crops; an odd rest goes after."""
    return _on_black(image, side, share=0.5)


def _on_black(image: Image.Image, side: int, *, share: float) -> np.ndarray:
    content = np.asarray(resize_longest(image, side), dtype=np.uint8)
    height, width = content.shape[:2]
    square = np.zeros((side, side, 3), dtype=np.uint8)
    top, left = int((side - height) * share), int((side - width) * share)
    square[top : top + height, left : left + width] = content
    return square
