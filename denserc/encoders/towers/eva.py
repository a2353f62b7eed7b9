"""EVA-02-CLIP's image tower: timm's Eva inside open_clip's TimmModel, opened block by block.

The parts are timm's own modules; only their order is ours, so that a construction can stop in
the middle of a block and any input size that the patch size divides is possible.
"""

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva
from torch import nn
from torch.nn import functional as F

from ...structures import ConfigurationError, PixelStatistics
from .base import ImageTower, TokenStream
from .position import resize_position_embedding, rotary_table


class EvaTower(ImageTower):
    """Wraps open_clip's `visual` whose trunk is a timm Eva with rotary embedding and a class token."""

    def __init__(self, *, name: str, visual: nn.Module, pixels: PixelStatistics):
        super().__init__()
        trunk = visual.trunk
        _require_eva02(name, trunk)
        self.visual = visual
        self.name = name
        self.pixels = pixels
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.native_size = trunk.patch_embed.img_size[0]
        self.width = trunk.embed_dim
        self.depth = len(trunk.blocks)
        self.num_heads = trunk.blocks[0].attn.num_heads
        self.embed_dim = trunk.num_classes

    @property
    def _trunk(self) -> Eva:
        return self.visual.trunk

    @property
    def blocks(self) -> nn.ModuleList:
        return self._trunk.blocks

    def embed(self, images: torch.Tensor) -> TokenStream:
        grid = self.grid_of(images)
        trunk = self._trunk
        x = trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([trunk.cls_token.expand(len(x), -1, -1), trunk.patch_embed.norm(x)], dim=1)
        x = trunk.norm_pre(
            x + resize_position_embedding(trunk.pos_embed, grid, 1, self.position_resize)
        )  # (B, 1 + N, D)
        reference = trunk.rope.ref_feat_shape
        table = rotary_table(
            grid,
            self.width // self.num_heads,
            None if reference is None else tuple(reference),
            trunk.rope.temperature,
            prefix=1,
            device=x.device,
            dtype=x.dtype,
        )
        return TokenStream(x, grid, prefix=1, rope=table)

    def values(self, index: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block = self._trunk.blocks[index]
        normed = block.norm1(tokens)
        attn = block.attn
        if attn.qkv is None:
            return normed, self._split(attn.v_proj(normed))
        weight = attn.qkv.weight.chunk(3)[2]
        return normed, self._split(F.linear(normed, weight, attn.v_bias))

    def queries_keys(
        self, index: int, normed: torch.Tensor, stream: TokenStream, rotary: bool, first: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attn = self._trunk.blocks[index].attn
        if attn.qkv is None:
            q, k = attn.q_proj(normed[:, :first]), attn.k_proj(normed)
        else:
            q_weight, k_weight, _ = attn.qkv.weight.chunk(3)
            q, k = F.linear(normed[:, :first], q_weight, attn.q_bias), F.linear(normed, k_weight)
        q, k = self._split(q), self._split(k)
        if rotary:
            q, k = (apply_rot_embed_cat(x, t).to(x.dtype) for x, t in ((q, stream.rope[:first]), (k, stream.rope)))
        return q, k

    def inner_norm(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        return self._trunk.blocks[index].attn.norm(merged)

    def output_projection(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        block = self._trunk.blocks[index]
        x = block.attn.proj(merged)
        return x if block.gamma_1 is None else block.gamma_1 * x

    def mlp(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        block = self._trunk.blocks[index]
        x = block.mlp(block.norm2(tokens))
        return tokens + (x if block.gamma_2 is None else block.gamma_2 * x)

    def to_text_space(self, tokens: torch.Tensor) -> torch.Tensor:
        trunk = self._trunk
        return self.visual.head(trunk.head(trunk.fc_norm(trunk.norm(tokens))))

    def pool(self, stream: TokenStream) -> torch.Tensor:
        return self.to_text_space(stream.tokens[:, :1])[:, 0]

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, A, T, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _require_eva02(name: str, trunk: nn.Module) -> None:
    """ConfigurationError naming every property in which a trunk is not the EVA-02 that this file knows."""
    if not isinstance(trunk, Eva):
        raise ConfigurationError(f"{name}: expected a timm Eva trunk, got {type(trunk).__name__}.")
    attn = trunk.blocks[0].attn
    reasons = [
        reason
        for wrong, reason in (
            (
                trunk.num_prefix_tokens != 1 or trunk.cls_token is None,
                "it has other prefix tokens than one class token",
            ),
            (trunk.pos_embed is None, "it has no absolute position embedding"),
            (trunk.rope is None or trunk.rope_mixed, "it has no axial rotary embedding"),
            (not isinstance(attn.q_norm, nn.Identity), "it normalizes queries and keys"),
            (trunk.global_pool != "token", f"it pools by {trunk.global_pool!r} instead of the class token"),
            (trunk.num_classes < 1, "its trunk has no projection into the image-text space"),
            (attn.head_dim * attn.num_heads != trunk.embed_dim, "its heads are not as wide as the tower"),
        )
        if wrong
    ]
    if reasons:
        raise ConfigurationError(f"{name} is not an EVA-02 tower as DenseRC can open it: {'; '.join(reasons)}.")
