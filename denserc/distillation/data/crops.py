"""Views of one image in distillation: the student's square and the teacher's crops.

Images come as pixels (h, w, 3) uint8 RGB. Views are uint8 tensors of shape (3, h, w) whose memory is still the
image's, row by row, channels last: to reorder it costs more than to resize; the towers' normalization happens on the
device. Boxes are (x1, y1, x2, y2).
"""

from enum import Enum

import numpy as np
import torch

from ...data.images.resizing import BicubicKernel, centered_square, corner_square, resize_all
from ...structures import ConfigurationError
from ...structures.boxes import grow_boxes


class CropResize(Enum):
    """Resizing of a region's crop to the teacher's square input."""

    SQUARE = "square"  # both sides resized: "resized to 224x224", the paper's supplement 7.1
    LETTERBOX = "letterbox"  # longest side resized, zeros around: CLIPSelf and DeCLIP


def padded_square(pixels: np.ndarray, size: int, resampling: BicubicKernel = BicubicKernel.PILLOW) -> torch.Tensor:
    """Longest side -> size, zeros to the right and below: (3, size, size) uint8.

    The zeros are black pixels, put there before the normalization, as CLIPSelf does.
    """
    return torch.from_numpy(corner_square(pixels, size, resampling)).permute(2, 0, 1)


def content_extent(pixels: np.ndarray) -> tuple[float, float]:
    """The part of the padded square that holds the image: (h, w), the larger of them 1."""
    height, width = pixels.shape[:2]
    longest = max(width, height)
    return height / longest, width / longest


def to_padded_square(boxes: torch.Tensor, extent: tuple[float, float]) -> torch.Tensor:
    """Boxes (K, 4) in 0..1 of the image -> 0..1 of its padded square."""
    height, width = extent
    return boxes * boxes.new_tensor([width, height, width, height])


class CropTransform:
    """Transform that cuts regions out of an image for the teacher.

    Args:
        size: Side of the teacher's square input.
        resize: Resizing of a crop to a square.
        scale: Factor by which a region grows about its center before it is cut (1 = the region).
        resampling: Resampling of the crops.
    """

    def __init__(
        self,
        *,
        size: int,
        resize: CropResize = CropResize.SQUARE,
        scale: float = 1.0,
        resampling: BicubicKernel = BicubicKernel.PILLOW,
    ):
        if size < 1 or scale <= 0:
            raise ConfigurationError(f"Crops need a positive size and scale; got size={size}, scale={scale}.")
        self.size = size
        self.resize = resize
        self.scale = scale
        self.resampling = resampling

    def __call__(self, pixels: np.ndarray, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (K, 4) in 0..1 of the image -> (K, 3, size, size) uint8."""
        windows = self.windows(pixels.shape[:2], boxes).tolist()
        cut = [pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in windows]
        if self.resize is CropResize.SQUARE:
            crops = resize_all(cut, (self.size, self.size), self.resampling)
        else:
            crops = np.stack([centered_square(crop, self.size, self.resampling) for crop in cut])
        return torch.from_numpy(crops).permute(0, 3, 1, 2)

    def windows(self, size: tuple[int, int], boxes: torch.Tensor) -> torch.Tensor:
        """Compute the crops of an image of this size (h, w): (K, 4) int64 pixels, at least one wide and high."""
        image = torch.tensor([size[1], size[0]])
        # In single precision, as CLIPSelf: it decides about edges half-way between two pixels.
        corners = (grow_boxes(boxes, self.scale) * image.repeat(2)).round().long()
        # A region below one pixel still shows the pixel around it.
        corners = torch.minimum(corners, image.repeat(2)).clamp(min=0)
        first = torch.minimum(corners[:, :2], image - 1)
        return torch.cat([first, torch.maximum(corners[:, 2:], first + 1)], dim=1)
