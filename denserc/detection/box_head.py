"""Pooled features -> a vector in the image-text space and one class-agnostic box.

Shape letters: R regions, C channels, K pooled side, F hidden width, E the image-text space.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .normalisation import ConvNormReLU


class BoxHead(nn.Module):
    """Shared convolutions and fully connected layers, then one of their own for class and for box.

    Args:
        in_channels: C of the pyramid.
        resolution: K.
        num_convs, conv_channels: the shared convolutions.
        num_fcs, fc_width: the shared fully connected layers; F.
        embed_dim: E.
        norm: builder of the convolutions' normalisation, or None.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        resolution: int,
        num_convs: int,
        conv_channels: int,
        num_fcs: int,
        fc_width: int,
        embed_dim: int,
        norm: Callable[[int], nn.Module] | None,
    ):
        super().__init__()
        convs = []
        for _ in range(num_convs):
            convs.append(ConvNormReLU(in_channels, conv_channels, norm=norm and norm(conv_channels)))
            in_channels = conv_channels
        self.convs = nn.Sequential(*convs)
        width = in_channels * resolution**2
        fcs = []
        for _ in range(num_fcs):
            fcs.append(nn.Linear(width, fc_width))
            width = fc_width
        self.fcs = nn.ModuleList(fcs)
        self.class_fc = nn.Linear(width, embed_dim)
        self.box_fc = nn.Linear(width, fc_width)
        self.deltas = nn.Linear(fc_width, 4)
        for fc in [*self.fcs, self.class_fc, self.box_fc]:
            nn.init.xavier_uniform_(fc.weight)
            nn.init.zeros_(fc.bias)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.deltas.bias)

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, C, K, K) -> class features (R, E), after a ReLU as the original, and differences (R, 4)."""
        if not self.training:
            # The order that convolutions compute in: reordered once, not before and after each. Not in training: on a
            # CPU PyTorch's batch statistics in this order are 50 times less exact.
            pooled = pooled.contiguous(memory_format=torch.channels_last)
        # Normalisation over no element at all would turn its running statistics to NaN.
        hidden = self.convs(pooled) if len(pooled) else pooled.new_zeros(0, self._flat_width())
        hidden = hidden.flatten(1)
        for fc in self.fcs:
            hidden = F.relu(fc(hidden))  # (R, F)
        return F.relu(self.class_fc(hidden)), self.deltas(F.relu(self.box_fc(hidden)))

    def _flat_width(self) -> int:
        first = self.fcs[0] if len(self.fcs) else self.class_fc
        return first.in_features
