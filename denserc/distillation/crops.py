"""The views of one image that distillation looks at: the student's square and the teacher's crops.

Views are uint8; the towers' normalisation happens on the device. Boxes are (x1, y1, x2, y2); sizes of
PIL images are (w, h).
"""

from enum import Enum

import numpy as np
import torch
from PIL import Image

from ..data.squares import centred_square, corner_square
from ..structures import ConfigurationError


class CropResize(Enum):
    """How a region's crop becomes the teacher's square input."""

    SQUARE = "square"  # both sides resized: "resized to 224x224", the paper's supplement 7.1
    LETTERBOX = "letterbox"  # longest side resized, zeros around: CLIPSelf and DeCLIP


def to_tensor(image: Image.Image | np.ndarray) -> torch.Tensor:
    """An RGB image, or its (h, w, 3) pixels -> (3, h, w) uint8."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def padded_square(image: Image.Image, size: int) -> torch.Tensor:
    """Longest side -> size, zeros to the right and below: (3, size, size) uint8.

    The zeros are black pixels, put there before the normalisation, as CLIPSelf does.
    """
    return to_tensor(corner_square(image, size))


def content_extent(image: Image.Image) -> tuple[float, float]:
    """The part of the padded square that holds the image: (h, w), the larger of them 1."""
    width, height = image.size
    longest = max(width, height)
    return height / longest, width / longest


def to_padded_square(boxes: torch.Tensor, extent: tuple[float, float]) -> torch.Tensor:
    """Boxes (K, 4) in 0..1 of the image -> 0..1 of its padded square."""
    height, width = extent
    return boxes * boxes.new_tensor([width, height, width, height])


def enlarge(boxes: torch.Tensor, scale: float) -> torch.Tensor:
    """Boxes (K, 4) in 0..1 of the image, scaled about their centres and cut at the image's edges."""
    if scale == 1.0:
        return boxes
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (scale / 2)
    return torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)


class CropTransform:
    """Cuts regions out of an image for the teacher.

    Args:
        size: side of the teacher's square input.
        resize: how a crop becomes square.
        scale: factor by which a region grows about its centre before it is cut (1 = the region).
    """

    def __init__(self, *, size: int, resize: CropResize = CropResize.SQUARE, scale: float = 1.0):
        if size < 1 or scale <= 0:
            raise ConfigurationError(f"Crops need a positive size and scale; got size={size}, scale={scale}.")
        self.size = size
        self.resize = resize
        self.scale = scale

    def __call__(self, image: Image.Image, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (K, 4) in 0..1 of the image -> (K, 3, size, size) uint8."""
        return torch.stack([self._cut(image, box) for box in enlarge(boxes, self.scale).tolist()])

    def _cut(self, image: Image.Image, box: list[float]) -> torch.Tensor:
        width, height = image.size
        x1, y1, x2, y2 = (round(v * side) for v, side in zip(box, (width, height, width, height), strict=True))
        # A region below one pixel still shows the pixel that it lies in.
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
        crop = image.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
        if self.resize is CropResize.SQUARE:
            return to_tensor(crop.resize((self.size, self.size), Image.Resampling.BICUBIC))
        return to_tensor(centred_square(crop, self.size))
