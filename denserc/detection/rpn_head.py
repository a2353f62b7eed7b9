"""The RPN's head, shared by all levels.

Shape letters: B images, C channels, (h, w) a map, A anchors a cell.
"""

from collections.abc import Callable

import torch
from torch import nn

from .normalisation import ConvNormReLU


class RPNHead(nn.Module):
    """Convolutions shared by all levels, then objectness and box differences per anchor.

    Args:
        in_channels: of the pyramid; also of the hidden convolutions.
        num_anchors: A.
        num_convs: 3 x 3 convolutions with ReLU.
        norm: builder of a normalisation after each convolution (one for all levels), or None.
    """

    def __init__(self, *, in_channels: int, num_anchors: int, num_convs: int, norm: Callable[[int], nn.Module] | None):
        super().__init__()
        self.convs = nn.Sequential(
            *(ConvNormReLU(in_channels, in_channels, norm=norm and norm(in_channels)) for _ in range(num_convs))
        )
        self.objectness = nn.Conv2d(in_channels, num_anchors, 1)
        self.deltas = nn.Conv2d(in_channels, num_anchors * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Maps (B, C, h, w) -> per level objectness logits (B, h * w * A) and differences (B, h * w * A, 4)."""
        logits, deltas = [], []
        for feature in features:
            hidden = self.convs(feature)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            # (B, A * 4, h, w) -> (B, h, w, A * 4) -> (B, h * w * A, 4)
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4))
        return logits, deltas

    @property
    def num_anchors(self) -> int:
        """A."""
        return self.objectness.out_channels

    @property
    def local(self) -> bool:
        """Whether an anchor's prediction depends on the cells around it alone: there is no normalisation."""
        return not any(hasattr(conv, "norm") for conv in self.convs)
