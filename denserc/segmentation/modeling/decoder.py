"""Upsampling decoder: every class's map to twice the size, with the image's maps as guidance.

Shape letters: B images, T classes, (h, w) input grid, C input channels, O output channels, G channels of the guidance.
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS_PER_GROUP = 16


class UpsamplingDecoder(nn.Module):
    """Transposed convolution to twice the size, guidance appended, then two convolutions with GroupNorm and ReLU.

    Args:
        channels: Input channels C.
        out_channels: Output channels O.
        guidance_channels: Guidance channels G.
    """

    def __init__(self, *, channels: int, out_channels: int, guidance_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels - guidance_channels, kernel_size=2, stride=2)
        groups = max(1, out_channels // CHANNELS_PER_GROUP)
        self.convs = nn.Sequential(
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out_channels),
            nn.ReLU(),
        )

    def convolve_guidance(self, guidance: torch.Tensor) -> torch.Tensor:
        """(B, G, 2h, 2w) -> (B, O, 2h, 2w): the guidance's share of the first convolution, once for all classes."""
        return F.conv2d(guidance, self.convs[0].weight[:, self.up.out_channels :], padding=1)

    def forward(self, maps: torch.Tensor, convolved: torch.Tensor) -> torch.Tensor:
        """(B, T, C, h, w) maps and `convolve_guidance`'s result -> (B, T, O, 2h, 2w)."""
        size = maps.shape[:2]
        x = self.up(maps.flatten(0, 1))
        x = F.conv2d(x, self.convs[0].weight[:, : self.up.out_channels], padding=1).unflatten(0, size)
        x = (x + convolved.unsqueeze(1)).flatten(0, 1)
        return self.convs[1:](x).unflatten(0, size)
