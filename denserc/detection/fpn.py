"""Feature pyramid for maps of any stride.

Detectron2's FPN names its levels by the logarithm of their strides, which 3.5, 7, 14, 28 do not have.
Shape letters: B images, D input width, C output channels.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


class FeaturePyramid(nn.Module):
    """Lateral 1 x 1 convolutions, nearest upsampling from coarse to fine, 3 x 3 convolutions, no activation.

    One level more than there are inputs comes from the coarsest output by taking every second cell.

    Args:
        in_channels: D, the same for all inputs.
        out_channels: C.
        num_inputs: how many maps come in.
        norm: builder of the normalisation after each convolution, or None.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, num_inputs: int, norm: Callable[[int], nn.Module] | None
    ):
        super().__init__()
        self.laterals = nn.ModuleList(_conv(in_channels, out_channels, 1, norm) for _ in range(num_inputs))
        self.outputs = nn.ModuleList(_conv(out_channels, out_channels, 3, norm) for _ in range(num_inputs))

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps (B, D, h, w), finest first -> num_inputs + 1 maps (B, C, h, w)."""
        return self.from_projected([conv(one) for conv, one in zip(self.projections, maps, strict=True)])

    @property
    def projections(self) -> list[nn.Conv2d]:
        """The 1 x 1 convolutions that come first, one a map."""
        return [lateral[0] for lateral in self.laterals]

    def from_projected(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """`forward` of maps (B, C, h, w) that its `projections` were applied to already."""
        merged = [lateral[1:](one) for lateral, one in zip(self.laterals, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            # Upsampled to the finer map's own size: with an odd number of cells it is not twice the coarser one.
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode="nearest")
        levels = [output(one) for output, one in zip(self.outputs, merged, strict=True)]
        levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels


def _conv(in_channels: int, out_channels: int, kernel: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm is None)
    nn.init.xavier_uniform_(conv.weight)
    if norm is None:
        nn.init.zeros_(conv.bias)
        return nn.Sequential(conv)
    return nn.Sequential(conv, norm(out_channels))
