"""torchvision's RoIAlign on all threads of a CPU.

Its CPU kernels use one thread, forward and backward: the largest part of a detector's step that is no product of
matrices. Every channel is computed by itself, so each thread takes some of them: the same numbers to the last bit.

Shape letters: B images, R regions of the whole batch, C channels, K pooled side.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
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
