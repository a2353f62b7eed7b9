"""Features of regions by RoIAlign on maps of any stride.

Detectron2's ROIPooler asserts strides that are powers of two; a patch of 14 gives 3.5, 7, 14, 28.
Shape letters: B images, R regions of the whole batch, C channels, K pooled side.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch._guards import detect_fake_mode
from torchvision.ops import roi_align

_ADAPTIVE = -1  # samples a bin: as many as the region's size asks for


def threaded_roi_align(feature: torch.Tensor, rois: torch.Tensor, *, scale: float, resolution: int) -> torch.Tensor:
    """`torchvision.ops.roi_align`, half-pixel aligned, with an adaptive number of samples.

    Args:
        feature: (B, C, h, w) float32.
        rois: (R, 5), the image's index and the corners in pixels; no gradient goes to them.
        scale: cells of the map per pixel.
        resolution: K.

    Returns:
        (R, C, K, K).
    """
    traced = torch.compiler.is_compiling() or detect_fake_mode() is not None
    if feature.device.type != "cpu" or torch.get_num_threads() == 1 or traced or not len(rois):
        return roi_align(feature, rois, resolution, scale, sampling_ratio=_ADAPTIVE, aligned=True)
    return _ByChannels.apply(feature, rois, scale, resolution)


class _ByChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: torch.Tensor, rois: torch.Tensor, scale: float, resolution: int) -> torch.Tensor:
        ctx.save_for_backward(rois)
        ctx.scale, ctx.resolution, ctx.shape = scale, resolution, feature.shape
        pooled = feature.new_empty(len(rois), feature.shape[1], resolution, resolution)

        def part(channels: slice) -> None:
            some = feature[:, channels]
            pooled[:, channels] = roi_align(some, rois, resolution, scale, sampling_ratio=_ADAPTIVE, aligned=True)

        _in_threads(part, feature.shape[1])
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (rois,) = ctx.saved_tensors
        images, channels, h, w = ctx.shape
        result = gradient.new_empty(ctx.shape)
        side = ctx.resolution

        def part(some: slice) -> None:
            result[:, some] = torch.ops.torchvision._roi_align_backward(
                gradient[:, some], rois, ctx.scale, side, side, images, some.stop - some.start, h, w, _ADAPTIVE, True
            )

        _in_threads(part, channels)
        return result, None, None, None


def _in_threads(part: Callable[[slice], None], channels: int) -> None:
    """part(channels from, to) for all of them, about as many in each thread of PyTorch's."""
    threads = min(torch.get_num_threads(), channels)
    edges = [channels * i // threads for i in range(threads + 1)]

    @torch.inference_mode()  # a thread's own setting; both kinds of tensors may be written to in it
    def run(some: slice) -> None:
        part(some)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, map(slice, edges[:-1], edges[1:])))  # the list raises what a thread raised


def to_rois(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Boxes (R_b, 4) of each image -> (R, 5) with the image's index in front."""
    indices = [box.new_full((len(box), 1), float(i)) for i, box in enumerate(boxes)]
    return torch.cat([torch.cat(indices), torch.cat(list(boxes))], dim=1)


def assign_levels(boxes: torch.Tensor, *, finest_scale: float, num_levels: int) -> torch.Tensor:
    """The map that each box is pooled from.

    Args:
        boxes: (R, 4).
        finest_scale: boxes of less than twice this side (root of the area, in pixels) go to level 0. The
            original uses 56 for all strides; Detectron2's canonical 224 at stride 16 is the same.

    Returns:
        (R,) int64 in 0 .. num_levels - 1: floor(log2(side / finest_scale + 1e-6)), clamped.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return torch.floor(torch.log2(side / finest_scale + 1e-6)).clamp(0, num_levels - 1).long()


class RegionPooler(nn.Module):
    """RoIAlign (half-pixel aligned, adaptive number of samples) from the level that fits a box's size.

    Args:
        resolution: K.
        strides: pixels per cell of each level, finest first.
        finest_scale: see assign_levels.
    """

    def __init__(self, *, resolution: int, strides: Sequence[float], finest_scale: float):
        super().__init__()
        self.resolution = resolution
        self.strides = tuple(float(stride) for stride in strides)
        self.finest_scale = finest_scale

    def forward(self, features: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps (B, C, h, w), one a level, and boxes (R_b, 4), one tensor an image -> (R, C, K, K)."""
        rois = to_rois(boxes)
        levels = assign_levels(rois[:, 1:], finest_scale=self.finest_scale, num_levels=len(self.strides))
        pooled = features[0].new_zeros(len(rois), features[0].shape[1], self.resolution, self.resolution)
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            chosen = (levels == level).nonzero().flatten()
            values = align(feature, rois[chosen], stride=stride, resolution=self.resolution)
            pooled.index_put_((chosen,), values.to(pooled.dtype))
        return pooled


def align(feature: torch.Tensor, rois: torch.Tensor, *, stride: float, resolution: int) -> torch.Tensor:
    """RoIAlign of one map: (B, C, h, w) and rois (R, 5) -> (R, C, resolution, resolution)."""
    # In half precision the boxes' coordinates would be off by up to half a pixel.
    return threaded_roi_align(feature.float(), rois.float(), scale=1.0 / stride, resolution=resolution)
