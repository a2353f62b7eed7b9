"""Spatial aggregation: Swin blocks over each class's map, guided by the image's dense features.

Shape letters: B images, T classes, (h, w) feature grid, C channels, G channels of the guidance, A heads,
K windows, L positions per window.

torchvision's and timm's Swin blocks do not fit: they have a relative position bias, a joint projection of q, k and v,
and no second input of q and k.
"""

import torch
from timm.layers import Mlp
from torch import nn
from torch.nn import functional as F

MASKED = -100.0  # Swin's logit between positions that are neighbors only by the cyclic shift


def joint_linear(layer: nn.Linear, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """`layer` on the concatenation of x and shared, (..., C) and (..., G), whose leading dimensions broadcast.

    The shared part is multiplied once, not once for each element of x that it is appended to.
    """
    own = x.shape[-1]
    return F.linear(x, layer.weight[:, :own]) + F.linear(shared, layer.weight[:, own:], layer.bias)


class WindowAttention(nn.Module):
    """Softmax attention inside windows; q and k see the guidance, v does not.

    Args:
        channels: Number C of channels.
        guidance_channels: Number G of guidance channels.
        num_heads: Number A of heads.
        window: Side of a window; a grid that is not larger has one window, without shift.
        shifted: True to displace windows by half their side, cyclically.
    """

    def __init__(self, *, channels: int, guidance_channels: int, num_heads: int, window: int, shifted: bool):
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.shifted = shifted
        self.q = nn.Linear(channels + guidance_channels, channels)
        self.k = nn.Linear(channels + guidance_channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) normalized maps and (B, h, w, G) guidance -> (B, T, h, w, C), without residual."""
        grid = x.shape[2:4]
        layout = WindowLayout(grid, self.window, self.shifted)
        guidance = guidance.unsqueeze(1)
        q, k = joint_linear(self.q, x, guidance), joint_linear(self.k, x, guidance)
        q, k, v = (layout.cut(part.flatten(0, 1), self.num_heads) for part in (q, k, self.v(x)))  # (K, B T, A, L, d)
        mask = layout.mask(x.device)
        if mask is None:
            mixed = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
            mixed = mixed.view_as(q)
        else:  # one call per window, so that the mask is not repeated for every map
            mask = mask.to(q.dtype)
            parts = zip(q, k, v, mask, strict=True)
            mixed = torch.stack([F.scaled_dot_product_attention(*part[:3], attn_mask=part[3]) for part in parts])
        return self.proj(layout.join(mixed)).unflatten(0, x.shape[:2])


class WindowLayout:
    """Cuts maps into windows and puts them together again.

    Args:
        grid: (h, w). A side that is not a multiple of the window is padded; padding is masked.
        window: Side of a window.
        shifted: True to shift a side that is longer than the window by half of it.
    """

    def __init__(self, grid: tuple[int, int], window: int, shifted: bool):
        self.grid = tuple(grid)
        # As in Swin, a grid whose shorter side fits one window is not shifted at all.
        fits = min(grid) <= window
        self.window = tuple(min(window, side) for side in grid)
        self.shift = tuple(0 if fits or not shifted else side // 2 for side in self.window)
        self.padded = tuple(-(-side // own) * own for side, own in zip(grid, self.window, strict=True))

    def cut(self, maps: torch.Tensor, num_heads: int) -> torch.Tensor:
        """(N, h, w, C) -> (K, N, A, L, C / A)."""
        (h, w), (height, width) = self.grid, self.padded
        if (height, width) != (h, w):
            maps = F.pad(maps, (0, 0, 0, width - w, 0, height - h))
        if any(self.shift):
            maps = maps.roll([-by for by in self.shift], (1, 2))
        x = maps.unflatten(2, (-1, self.window[1])).unflatten(1, (-1, self.window[0]))  # (N, rows, a, columns, b, C)
        x = x.unflatten(-1, (num_heads, -1)).permute(1, 3, 0, 5, 2, 4, 6)  # (rows, columns, N, A, a, b, d)
        return x.flatten(4, 5).flatten(0, 1)

    def join(self, windows: torch.Tensor) -> torch.Tensor:
        """The inverse of `cut`."""
        (h, w), (height, _) = self.grid, self.padded
        x = windows.unflatten(3, self.window).unflatten(0, (height // self.window[0], -1))
        x = x.permute(2, 0, 4, 1, 5, 3, 6).flatten(5)  # (N, rows, a, columns, b, C)
        maps = x.flatten(3, 4).flatten(1, 2)
        if any(self.shift):
            maps = maps.roll(self.shift, (1, 2))
        return maps[:, :h, :w]

    def mask(self, device: torch.device) -> torch.Tensor | None:
        """(K, L, L) to be added to the logits: MASKED between positions of different regions; None for one region."""
        regions = [self._regions(axis) for axis in (0, 1)]
        if all(int(one.max()) == 0 for one in regions):
            return None
        ids = regions[0][:, None] * (int(regions[1].max()) + 1) + regions[1]  # (h', w')
        ids = ids.unflatten(1, (-1, self.window[1])).unflatten(0, (-1, self.window[0]))
        ids = ids.transpose(1, 2).flatten(2).flatten(0, 1)  # (K, L)
        return ((ids[:, None] != ids[:, :, None]) * MASKED).to(device)

    def _regions(self, axis: int) -> torch.Tensor:
        """(h',) or (w',): number of the region of each position after the shift; padding is a region of its own."""
        position = torch.arange(self.padded[axis])
        window, shift = self.window[axis], self.shift[axis]
        region = torch.zeros_like(position)
        if shift:
            region += (position >= len(position) - window).long() + (position >= len(position) - shift).long()
        return region + 3 * (position.roll(-shift) >= self.grid[axis])


class SwinBlock(nn.Module):
    """Window attention and MLP, each with norm before and residual after; without dropout.

    Args:
        attention: See WindowAttention.
        channels: Number C of channels.
        mlp_ratio: Width of the MLP over C.
    """

    def __init__(self, *, attention: WindowAttention, channels: int, mlp_ratio: int = 4):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, mlp_ratio * channels, act_layer=nn.GELU)

    def forward(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) maps and (B, h, w, G) guidance -> (B, T, h, w, C)."""
        x = x + self.attn(self.norm1(x), guidance)
        return x + self.mlp(self.norm2(x))


class SpatialAggregation(nn.Module):
    """Two Swin blocks, the second one shifted, with one norm of the guidance for both.

    Args:
        channels: Number C of channels.
        guidance_channels: Number G of guidance channels.
        num_heads, window: See WindowAttention.
    """

    def __init__(self, *, channels: int, guidance_channels: int, num_heads: int, window: int):
        super().__init__()
        self.guidance_norm = nn.LayerNorm(guidance_channels)
        self.blocks = nn.ModuleList(
            SwinBlock(
                attention=WindowAttention(
                    channels=channels,
                    guidance_channels=guidance_channels,
                    num_heads=num_heads,
                    window=window,
                    shifted=shifted,
                ),
                channels=channels,
            )
            for shifted in (False, True)
        )

    def forward(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) maps and (B, h, w, G) guidance -> (B, T, h, w, C)."""
        guidance = self.guidance_norm(guidance)
        for block in self.blocks:
            x = block(x, guidance)
        return x
