"""Upsampling of four ViT maps to four strides, and the feature pyramid over them.

Shape letters: B images, D the tower's width, C channels of the pyramid, (h, w) the patch grid.
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
        out_channels: Output channels C.
        num_inputs: Number of input maps.
        norm: Builder of the normalization after each convolution, or None.
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
        """The 1 x 1 convolutions that come first, one per map."""
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


class MapUpsampler(nn.Module):
    """Equal-sized maps -> a pyramid: x 4, x 2, x 1, / 2 (F-ViT after ViTDet's simple pyramid).

    Args:
        width: Width D of the maps.
        norm: Builder of the normalization in the x 4 branch.
    """

    SCALES = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, *, width: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(width, width, 2, stride=2),
                    norm(width),
                    nn.GELU(),
                    nn.ConvTranspose2d(width, width, 2, stride=2),
                ),
                nn.ConvTranspose2d(width, width, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2, stride=2),
            ]
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Four (B, D, h, w) -> (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w), (B, D, h // 2, w // 2)."""
        return [branch(one) for branch, one in zip(self.branches, maps, strict=True)]

    def projected(self, maps: Sequence[torch.Tensor], projections: Sequence[nn.Conv2d]) -> list[torch.Tensor]:
        """Apply 1 x 1 convolutions D -> C to `forward`'s maps, in a fraction of the arithmetic.

        Args:
            maps: Maps as `forward` takes them.
            projections: One projection per map.

        Returns:
            Four (B, C, ., .), equal to projection(branch(map)) but for rounding.
        """
        results = []
        for branch, projection, one in zip(self.branches, projections, maps, strict=True):
            *layers, last = branch if isinstance(branch, nn.Sequential) else [branch]
            for layer in layers:
                one = layer(one)
            composed = isinstance(last, nn.ConvTranspose2d)
            results.append(upsample_and_project(one, last, projection) if composed else projection(last(one)))
        return results


def upsample_and_project(one: torch.Tensor, upsample: nn.ConvTranspose2d, projection: nn.Conv2d) -> torch.Tensor:
    """Compute projection(upsample(one)) as one transposed convolution.

    No layer is between the two, so their weights are multiplied first, once, instead of at every cell of the fine map:
    D x C products per cell instead of D x D + D x C, and no map of D channels. Gradients reach both weights. Of about
    320 G multiply-accumulates in a step of B/16's heads it saves 45 (docs/SPEED.md); GPU: not measured.

    Args:
        one: (B, D, h, w).
        upsample: D -> D, each output cell made from one input cell.
        projection: 1 x 1, D -> C.
    """
    with torch.autocast(one.device.type, enabled=False):  # half precision would round the product of the weights
        matrix = projection.weight[:, :, 0, 0].float()  # (C, D)
        # Contiguous: einsum's own order of memory would choose slower kernels.
        weight = torch.einsum("dekl,ce->dckl", upsample.weight.float(), matrix).contiguous()
        bias = matrix @ upsample.bias.float()
    if projection.bias is not None:
        bias = bias + projection.bias
    return F.conv_transpose2d(one, weight.to(upsample.weight.dtype), bias, stride=upsample.stride)
