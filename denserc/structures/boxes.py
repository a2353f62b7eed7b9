"""Boxes and the features in them, as distillation and evaluation share them.

Boxes are (x1, y1, x2, y2).
Shape letters: B images, K boxes of an image, R boxes of the batch, C channels, (h, w) cells.
"""

from collections.abc import Sequence

import torch
from torchvision.ops import roi_align


def grow_boxes(boxes: torch.Tensor, scale: float, size: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
    """Scale boxes about their centers and clip them to the image.

    Args:
        boxes: (K, 4) in the units of `size`.
        scale: Factor of both sides; 1 returns `boxes` as they are.
        size: (h, w) of the image; by default boxes are in 0..1.

    Returns:
        (K, 4).
    """
    if scale == 1.0:
        return boxes
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (scale / 2)
    limit = boxes.new_tensor([size[1], size[0]] * 2)
    return torch.cat([center - half, center + half], dim=1).clamp(min=0).minimum(limit)


def pool_cells(features: torch.Tensor, boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Average each box by RoIAlign to 1 x 1 (half-pixel aligned, adaptive number of samples).

    Args:
        features: (B, C, h, w).
        boxes: B tensors (K, 4) in cells of the map, of the features' dtype.

    Returns:
        (R, C), image after image.
    """
    return roi_align(features, list(boxes), output_size=(1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True)[
        ..., 0, 0
    ]
