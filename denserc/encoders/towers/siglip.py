"""SigLIP's image tower: timm's VisionTransformer pooled by attention, opened block by block.

SigLIP has no class token: its image embedding comes from an attention-pooling head with one learned
query. Applied to a single token, that head attends to this token with weight one, so per patch it is
the value path of the head, without attention over patches: that is the way into the text space here.
"""

import torch
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from ...structures import ConfigurationError, PixelStatistics
from .base import ImageTower, TokenStream
from .position import resize_position_embedding


class SiglipTower(ImageTower):
    """Wraps open_clip's `visual` whose trunk is a timm VisionTransformer with an attention-pooling head."""

    def __init__(self, *, name: str, visual: nn.Module, pixels: PixelStatistics):
        super().__init__()
        trunk = visual.trunk
        _require_siglip(name, trunk)
        self.visual = visual
        self.name = name
        self.pixels = pixels
        self.patch_size = trunk.patch_embed.patch_size[0]
        # ViT-SO400M-14-SigLIP-384 has 27 x 27 patches and leaves the last 6 pixels of 384 unread: 378.
        self.native_size = trunk.patch_embed.grid_size[0] * self.patch_size
        self.width = trunk.embed_dim
        self.depth = len(trunk.blocks)
        self.num_heads = trunk.blocks[0].attn.num_heads
        self.embed_dim = trunk.attn_pool.out_features

    @property
    def _trunk(self) -> VisionTransformer:
        return self.visual.trunk

    @property
    def blocks(self) -> nn.ModuleList:
        return self._trunk.blocks

    def embed(self, images: torch.Tensor) -> TokenStream:
        grid = self.grid_of(images)
        trunk = self._trunk
        x = trunk.patch_embed.norm(trunk.patch_embed.proj(images).flatten(2).transpose(1, 2))  # (B, N, D)
        positions = resize_position_embedding(trunk.pos_embed, grid, 0, self.position_resize)
        return TokenStream(trunk.norm_pre(x + positions.to(x.dtype)), grid, prefix=0)

    def values(self, index: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block = self._trunk.blocks[index]
        normed = block.norm1(tokens)
        return normed, self._project_in(block.attn, normed, 2)

    def queries_keys(
        self, index: int, normed: torch.Tensor, stream: TokenStream, rotary: bool, first: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attn = self._trunk.blocks[index].attn
        q, k = self._project_in(attn, normed[:, :first], 0), self._project_in(attn, normed, 1)
        return attn.q_norm(q), attn.k_norm(k)

    def inner_norm(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        return self._trunk.blocks[index].attn.norm(merged)

    def output_projection(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        block = self._trunk.blocks[index]
        return block.ls1(block.attn.proj(merged))

    def mlp(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        block = self._trunk.blocks[index]
        return tokens + block.ls2(block.mlp(block.norm2(tokens)))

    def to_text_space(self, tokens: torch.Tensor) -> torch.Tensor:
        trunk, head = self._trunk, self._trunk.attn_pool
        _, value_weight = head.kv.weight.chunk(2)
        value_bias = None if head.kv.bias is None else head.kv.bias.chunk(2)[1]
        x = head.proj(F.linear(trunk.norm(tokens), value_weight, value_bias))  # attention with one token: its value
        return self.visual.head(x + head.mlp(head.norm(x)))

    def pool(self, stream: TokenStream) -> torch.Tensor:
        trunk = self._trunk
        return self.visual.head(trunk.head(trunk.fc_norm(trunk.attn_pool(trunk.norm(stream.tokens)))))

    def _project_in(self, attn: nn.Module, normed: torch.Tensor, part: int) -> torch.Tensor:
        """One of q, k, v of the fused input projection: (B, T, D) -> (B, A, T, d)."""
        bias = None if attn.qkv.bias is None else attn.qkv.bias.chunk(3)[part]
        x = F.linear(normed, attn.qkv.weight.chunk(3)[part], bias)
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _require_siglip(name: str, trunk: VisionTransformer) -> None:
    """ConfigurationError naming every property in which a trunk is not the SigLIP that this file knows."""
    head = trunk.attn_pool
    reasons = [
        reason
        for wrong, reason in (
            (not isinstance(head, AttentionPoolLatent), "it has no attention-pooling head"),
            (trunk.num_prefix_tokens != 0, "it has a class or register token"),
            (trunk.pos_embed is None, "it has no absolute position embedding"),
            (not isinstance(trunk.fc_norm, nn.Identity), "it has a norm after the pooling"),
            (trunk.num_classes > 0, "it has a classifier after the pooling"),
            (head is not None and (head.pos_embed is not None or head.mlp is None), "its pooling head has other parts"),
        )
        if wrong
    ]
    if reasons:
        raise ConfigurationError(f"{name} is not a SigLIP tower as DenseRC can open it: {'; '.join(reasons)}.")
