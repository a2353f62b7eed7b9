"""Four maps of one ViT, brought to four strides.

Shape letters: B images, D the tower's width, (h, w) the patch grid.
"""

from collections.abc import Callable, Sequence

import torch
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
