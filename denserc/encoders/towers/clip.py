"""OpenAI CLIP's image tower: open_clip's own VisionTransformer, opened block by block."""

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn
from torch.nn import functional as F

from ...structures import ConfigurationError, PixelStatistics
from .base import ImageTower, TokenStream
from .position import resize_position_embedding


class ClipVitTower(ImageTower):
    """Wraps an open_clip VisionTransformer with a class token and the norm before pooling.

    The activation (QuickGELU for OpenAI's weights) is that of the wrapped module; it is chosen by
    the model's name ("ViT-B-16-quickgelu") and so travels with a checkpoint.
    """

    def __init__(self, *, name: str, visual: VisionTransformer, pixels: PixelStatistics):
        super().__init__()
        _require_plain_vit(name, visual)
        self.visual = visual
        self.name = name
        self.pixels = pixels
        self.patch_size = visual.patch_size[0]
        self.native_size = visual.image_size[0]
        self.width = visual.conv1.out_channels
        self.depth = len(visual.transformer.resblocks)
        self.num_heads = visual.transformer.resblocks[0].attn.num_heads
        self.embed_dim = visual.proj.shape[1]

    @property
    def blocks(self) -> nn.ModuleList:
        return self.visual.transformer.resblocks

    def embed(self, images: torch.Tensor) -> TokenStream:
        grid = self.grid_of(images)
        visual = self.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        positions = resize_position_embedding(visual.positional_embedding[None], grid, 1, self.position_resize)
        return TokenStream(visual.ln_pre(x + positions.to(x.dtype)), grid, prefix=1)

    def values(self, index: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block = self._block(index)
        normed = block.ln_1(tokens)
        return normed, self._project_in(block, normed, 2)

    def queries_keys(
        self, index: int, normed: torch.Tensor, stream: TokenStream, rotary: bool, first: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        block = self._block(index)
        return self._project_in(block, normed[:, :first], 0), self._project_in(block, normed, 1)

    def inner_norm(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        return merged

    def output_projection(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        block = self._block(index)
        return block.ls_1(block.attn.out_proj(merged))

    def mlp(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        block = self._block(index)
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))

    def to_text_space(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.visual.ln_post(tokens) @ self.visual.proj

    def pool(self, stream: TokenStream) -> torch.Tensor:
        return self.to_text_space(stream.tokens[:, :1])[:, 0]

    def _block(self, index: int) -> ResidualAttentionBlock:
        return self.visual.transformer.resblocks[index]

    def _project_in(self, block: ResidualAttentionBlock, normed: torch.Tensor, part: int) -> torch.Tensor:
        """One of q, k, v of PyTorch's fused input projection: (B, T, D) -> (B, A, T, d)."""
        attn = block.attn
        x = F.linear(normed, attn.in_proj_weight.chunk(3)[part], attn.in_proj_bias.chunk(3)[part])
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _require_plain_vit(name: str, visual: VisionTransformer) -> None:
    """ConfigurationError naming every property in which a tower is not the ViT that this file knows."""
    block = visual.transformer.resblocks[0]
    reasons = [
        reason
        for wrong, reason in (
            (visual.attn_pool is not None, "it pools by attention"),
            (visual.pool_type != "tok", f"it pools by {visual.pool_type!r} instead of the class token"),
            (visual.final_ln_after_pool, "its final norm follows the pooling"),
            (visual.proj is None, "it has no projection into the image-text space"),
            (not isinstance(block, ResidualAttentionBlock), f"its blocks are {type(block).__name__}"),
            (not isinstance(getattr(block, "attn", None), nn.MultiheadAttention), "its attention is not PyTorch's"),
            (visual.patch_size[0] != visual.patch_size[1], "its patches are not square"),
        )
        if wrong
    ]
    if reasons:
        raise ConfigurationError(f"{name} is not a CLIP ViT as DenseRC can open it: {'; '.join(reasons)}.")
