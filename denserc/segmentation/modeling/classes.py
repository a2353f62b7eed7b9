"""Class aggregation: attention over the classes at each position, guided by the text.

Shape letters: B images, T classes, (h, w) feature grid, (p, q) pooled grid, n = p q positions, C channels,
G channels of the text guidance, A heads, d = C / A, M padding tokens.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ...construction import GradientCheckpointing
from .chunks import in_chunks
from .options import ClassAttentionKind
from .spatial import joint_linear

EPS = 1e-6  # of linear attention's divisor


class ClassAttention(nn.Module):
    """Attention over classes, without output projection; q and k see the text guidance, v does not.

    Learned padding tokens take part as keys and values. All M of them are the same vector, so one is computed and
    counted M times.

    Args:
        channels: Number C of channels.
        guidance_channels: Number G of guidance channels.
        num_heads: Number A of heads.
        kind: See ClassAttentionKind.
    """

    def __init__(self, *, channels: int, guidance_channels: int, num_heads: int, kind: ClassAttentionKind):
        super().__init__()
        self.num_heads = num_heads
        self.kind = kind
        self.q = nn.Linear(channels + guidance_channels, channels)
        self.k = nn.Linear(channels + guidance_channels, channels)
        self.v = nn.Linear(channels, channels)

    def forward(
        self,
        x: torch.Tensor,
        guidance: torch.Tensor,
        padding: tuple[torch.Tensor, torch.Tensor] | None,
        count: int,
    ) -> torch.Tensor:
        """Mix the classes of each position.

        Args:
            x: (B, n, T, C), normalized.
            guidance: (B, T, G).
            padding: The padding token (C,), normalized, and its guidance (G,); None: there is none.
            count: M; with 0 the padding gets a gradient of zero.

        Returns:
            (B, n, T, C), without residual.
        """
        guidance = guidance.unsqueeze(1)
        q, k, v = joint_linear(self.q, x, guidance), joint_linear(self.k, x, guidance), self.v(x)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in (q, k, v))  # (B, n, T, A, d)
        extra = None
        if padding is not None:
            token, token_guidance = padding
            extra = joint_linear(self.k, token, token_guidance), self.v(token)
            extra = tuple(part.unflatten(-1, (self.num_heads, -1)) for part in extra)  # (A, d)
        mix = _linear_attention if self.kind is ClassAttentionKind.LINEAR else _softmax_attention
        return mix(q, k, v, extra, count).flatten(-2)


Extra = tuple[torch.Tensor, torch.Tensor] | None
"""Key and value (A, d) of the padding token."""


def _linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: Extra, count: int) -> torch.Tensor:
    """phi(q) (sum phi(k) v) / (phi(q) sum phi(k)), phi = elu + 1, of (B, n, T, A, d)."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    total = k.shape[2] + count
    values = torch.einsum("bntad,bntae->bnade", k, v / total)  # as in CAT-Seg: sums stay small
    weights = k.sum(dim=2)  # (B, n, A, d)
    if extra is not None:
        extra_k = F.elu(extra[0]) + 1
        values = values + count * torch.einsum("ad,ae->ade", extra_k, extra[1] / total)
        weights = weights + count * extra_k
    divisor = torch.einsum("bntad,bnad->bnta", q, weights) + EPS
    return torch.einsum("bntad,bnade->bntae", q, values) * (total / divisor).unsqueeze(-1)


def _softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: Extra, count: int) -> torch.Tensor:
    """Softmax attention with scale d^-1/2; a key that counts M times has log M added to its logits."""
    b, n, t, a, d = q.shape
    bias = None
    if extra is not None:
        k, v = (torch.cat([one, last.expand(b, n, 1, a, d)], dim=2) for one, last in ((k, extra[0]), (v, extra[1])))
        bias = F.pad(q.new_zeros(t, t), (0, 1), value=math.log(count) if count else -math.inf)  # (T, T + 1)
    q, k, v = (part.flatten(0, 1).transpose(1, 2) for part in (q, k, v))  # (B n, A, ., d)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return mixed.transpose(1, 2).unflatten(0, (b, n))


class ClassAggregation(nn.Module):
    """Attention over classes and an MLP on the pooled maps, added to the unpooled ones.

    As in CAT-Seg, the result that is added holds the pooled maps already, so x is counted twice. The MLP has ReLU,
    and maps are resized with align_corners.

    Args:
        attention: See ClassAttention.
        channels: Number C of channels.
        guidance_channels: Number G of guidance channels.
        padded_length: Number of classes up to which padding tokens are added; 0 for none.
        mlp_ratio: Width of the MLP over C.

    Attributes:
        gradient_checkpointing: Part that the backward pass recomputes.
    """

    def __init__(
        self,
        *,
        attention: ClassAttention,
        channels: int,
        guidance_channels: int,
        padded_length: int,
        mlp_ratio: int = 4,
    ):
        super().__init__()
        self.padded_length = padded_length
        self.gradient_checkpointing = GradientCheckpointing.NONE
        if padded_length:
            self.padding_token = nn.Parameter(torch.zeros(channels))
            self.padding_guidance = nn.Parameter(torch.zeros(guidance_channels))
        self.norm1 = nn.LayerNorm(channels)
        self.attention = attention
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels), nn.ReLU(), nn.Linear(mlp_ratio * channels, channels)
        )

    def forward(self, x: torch.Tensor, guidance: torch.Tensor, *, pooling: tuple[int, int], chunk: int) -> torch.Tensor:
        """Mix the classes.

        Args:
            x: (B, T, h, w, C).
            guidance: (B, T, G).
            pooling: (h, w) of the average pooling.
            chunk: Number of maps (B T) whose size the memory may have, without gradient or with checkpointing.

        Returns:
            (B, T, h, w, C).
        """
        b, t, h, w, c = x.shape
        pooled = x
        if pooling != (1, 1):
            maps = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), pooling)
            pooled = maps.permute(0, 2, 3, 1).unflatten(0, (b, t))  # (B, T, p, q, C)
        size = pooled.shape[2:4]
        padding = (self.norm1(self.padding_token), self.padding_guidance) if self.padded_length else None
        count = max(0, self.padded_length - t)

        def mix(sequences: torch.Tensor) -> torch.Tensor:
            y = sequences + self.attention(self.norm1(sequences), guidance, padding, count)
            return y + self.mlp(self.norm2(y))

        sequences = pooled.permute(0, 2, 3, 1, 4).flatten(1, 2)  # (B, n, T, C)
        positions = max(1, chunk * sequences.shape[1] // (b * t))
        mixed = in_chunks(mix, sequences, 1, positions, self.gradient_checkpointing)
        y = mixed.unflatten(1, size).permute(0, 3, 1, 2, 4)  # (B, T, p, q, C)
        if size != (h, w):
            maps = y.flatten(0, 1).permute(0, 3, 1, 2)
            maps = F.interpolate(maps, size=(h, w), mode="bilinear", align_corners=True)
            y = maps.permute(0, 2, 3, 1).unflatten(0, (b, t))
        return x + y
