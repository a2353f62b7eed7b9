"""Boxes as differences to reference boxes, and back.

Shape letter: R boxes. Boxes are (x1, y1, x2, y2) in absolute pixels of the network input.
"""

import math
from collections.abc import Sequence

import torch

from .options import SizeClamp

MAX_LOG_SCALE = math.log(1000.0 / 16)


class BoxCoder:
    """Encodes a target box relative to a reference box as (dx, dy, dw, dh), each multiplied by a weight.

    Args:
        weights: Weights of dx, dy, dw, dh: the inverse of MMDetection's standard deviations (.1 .1 .2 .2 -> 10 10 5 5).
        size_clamp: Limit of dw and dh when decoding.
    """

    def __init__(self, *, weights: Sequence[float], size_clamp: SizeClamp = SizeClamp.TWO_SIDED):
        self.weights = tuple(float(weight) for weight in weights)
        self.size_clamp = size_clamp

    def encode(self, reference: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """References (R, 4) and targets (R, 4), both of positive size -> differences (R, 4)."""
        reference_center, reference_size = _center_size(reference)
        target_center, target_size = _center_size(target)
        shift = (target_center - reference_center) / reference_size
        scale = torch.log(target_size / reference_size)
        return torch.cat([shift, scale], dim=1) * reference.new_tensor(self.weights)

    def decode(
        self, reference: torch.Tensor, deltas: torch.Tensor, image_size: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """References (R, 4) and differences (R, 4) -> boxes (R, 4).

        Args:
            image_size: (h, w) without padding; boxes are clipped to it. None: not clipped.
        """
        deltas = deltas.float() / reference.new_tensor(self.weights)
        center, size = _center_size(reference)
        least = -MAX_LOG_SCALE if self.size_clamp is SizeClamp.TWO_SIDED else None
        new_center = center + size * deltas[:, :2]
        half = size * deltas[:, 2:].clamp(min=least, max=MAX_LOG_SCALE).exp() * 0.5
        boxes = torch.cat([new_center - half, new_center + half], dim=1)
        return boxes if image_size is None else clip_boxes(boxes, image_size)


def clip_boxes(boxes: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """(R, 4) boxes moved inside an image of (h, w) pixels; a box outside it becomes empty."""
    h, w = image_size
    x = boxes[:, 0::2].clamp(0, w)
    y = boxes[:, 1::2].clamp(0, h)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def _center_size(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, 4) -> centers (R, 2) and sizes (R, 2), both (x, y)."""
    return (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
