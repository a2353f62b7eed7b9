"""RoIAlign of regions on maps of any stride, with the level chosen by the size of the box.

Detectron2's ROIPooler asserts strides that are powers of two; a patch of 14 gives 3.5, 7, 14, 28.
Shape letters: B images, R regions of the whole batch, C channels, K pooled side.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import roi_align


def to_rois(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join boxes (R_b, 4) of each image to (R, 5) with the image's index in front."""
    indices = [box.new_full((len(box), 1), float(i)) for i, box in enumerate(boxes)]
    return torch.cat([torch.cat(indices), torch.cat(list(boxes))], dim=1)


def assign_levels(boxes: torch.Tensor, *, finest_scale: float, num_levels: int) -> torch.Tensor:
    """Choose the map that each box is pooled from.

    Args:
        boxes: (R, 4) boxes in pixels of the network input.
        finest_scale: Half the side (root of the area, in pixels) below which boxes go to level 0. MMDetection F-ViT
            uses 56 for all strides; Detectron2's canonical 224 at stride 16 is the same.

    Returns:
        (R,) int64 in 0 .. num_levels - 1: floor(log2(side / finest_scale + 1e-6)), clamped.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return torch.floor(torch.log2(side / finest_scale + 1e-6)).clamp(0, num_levels - 1).long()


class RegionPooler(nn.Module):
    """RoIAlign (half-pixel aligned, adaptive number of samples) from the level that fits a box's size.

    Args:
        resolution: Side K of the pooled maps.
        strides: Pixels per cell of each level, finest first.
        finest_scale: See assign_levels.
    """

    def __init__(self, *, resolution: int, strides: Sequence[float], finest_scale: float):
        super().__init__()
        self.resolution = resolution
        self.strides = tuple(float(stride) for stride in strides)
        self.finest_scale = finest_scale

    def forward(self, features: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pool maps (B, C, h, w), one per level, at boxes (R_b, 4), one tensor per image -> (R, C, K, K)."""
        rois = to_rois(boxes)
        levels = assign_levels(rois[:, 1:], finest_scale=self.finest_scale, num_levels=len(self.strides))
        pooled = features[0].new_zeros(len(rois), features[0].shape[1], self.resolution, self.resolution)
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            chosen = (levels == level).nonzero().flatten()
            values = align(feature, rois[chosen], stride=stride, resolution=self.resolution)
            pooled.index_put_((chosen,), values.to(pooled.dtype))
        return pooled


def align(feature: torch.Tensor, rois: torch.Tensor, *, stride: float, resolution: int) -> torch.Tensor:
    """Apply RoIAlign (half-pixel aligned, adaptive number of samples) to one map.

    Args:
        feature: (B, C, h, w).
        rois: (R, 5), the index of the image and the corners in pixels.
        stride: Pixels per cell of the map.
        resolution: Side K of the pooled maps.

    Returns:
        (R, C, K, K) float32.
    """
    # In half precision the boxes' coordinates would be off by up to half a pixel.
    return roi_align(feature.float(), rois.float(), resolution, 1.0 / stride, sampling_ratio=-1, aligned=True)
