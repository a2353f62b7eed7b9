"""Four maps of one ViT, brought to four strides.

Shape letters: B images, D the tower's width, C channels of the pyramid, (h, w) the patch grid.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


class MapUpsampler(nn.Module):
    """Equal-sized maps -> a pyramid: x 4, x 2, x 1, / 2 (F-ViT after ViTDet's simple pyramid).

    Args:
        width: D.
        norm: builder of the normalisation in the x 4 branch.
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
        """What 1 x 1 convolutions D -> C make of `forward`'s maps, in a fraction of the arithmetic.

        Args:
            maps: as `forward` takes them.
            projections: one a map.

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
    """projection(upsample(one)) as one transposed convolution.

    Nothing stands between the two, so their weights multiply first, once, instead of at every cell of the fine map:
    D x C products a cell instead of D x D + D x C, and no map of D channels. Gradients reach both weights.

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
