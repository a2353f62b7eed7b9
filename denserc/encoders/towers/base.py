"""Interface of an image tower, independent of the library that built it.

Shape letters: B images, (H, W) pixels, (h, w) = (H, W) / patch size, N = h * w patch tokens,
T any number of tokens, D the tower's width, A attention heads, d = D / A, E the width of the
image-text space.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from ...structures import DataError, PixelStatistics
from .position import PositionResize


@dataclass(frozen=True)
class TokenStream:
    """The residual stream between two blocks of a ViT.

    Args:
        tokens: (B, prefix + N, D), class token first.
        grid: (h, w) of the patch tokens, row-major after the prefix.
        prefix: Number of tokens before the patches (1 with a class token, 0 without).
        rope: Rotary table of all tokens, or None.
    """

    tokens: torch.Tensor
    grid: tuple[int, int]
    prefix: int
    rope: torch.Tensor | None = None

    def with_tokens(self, tokens: torch.Tensor) -> "TokenStream":
        """The same grid with other tokens."""
        return replace(self, tokens=tokens)

    @property
    def patches(self) -> torch.Tensor:
        """(B, N, D) without the prefix."""
        return self.tokens[:, self.prefix :]

    def to_map(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, C, h, w)."""
        h, w = self.grid
        return patches.transpose(1, 2).reshape(len(patches), -1, h, w)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """(B, A, T, d) -> (B, T, A * d)."""
    return x.transpose(1, 2).flatten(2)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Softmax attention, (B, A, T, d) x (B, A, S, d) x (B, A, S, d) -> (B, A, T, d).

    On a CPU it is computed in float32 even under autocast: the backward pass of PyTorch's fused
    bfloat16 kernel takes two to four times as long there.
    """
    if q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=scale).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


class ImageTower(nn.Module, ABC):
    """A CLIP image encoder opened up block by block, so that a construction can use its parts."""

    name: str  # how it was asked for, e.g. "EVA02-B-16"
    patch_size: int
    native_size: int  # side of the square input that it was trained with
    width: int  # D
    depth: int  # number of blocks
    num_heads: int  # A
    embed_dim: int  # E
    pixels: PixelStatistics
    position_resize: PositionResize = PositionResize.BICUBIC  # at sizes other than the native one

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The library's modules of the blocks, first to last."""

    def visit(self, index: int, function: Callable, *tensors: torch.Tensor | None) -> tuple:
        """`function(*tensors)`, for a function that uses the weights of one block and returns a tuple of tensors.

        Where processes share the weights (`engine.sharding`), a block's are whole inside of its visit only.
        """
        block = self.blocks[index]
        return block.visit(function, *tensors) if hasattr(block, "visit") else function(*tensors)

    @abstractmethod
    def embed(self, images: torch.Tensor) -> TokenStream:
        """(B, 3, H, W) normalized images -> the stream that enters block 0.

        Raises:
            DataError: H or W is not a multiple of the patch size.
        """

    @abstractmethod
    def values(self, index: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value embeddings of one block.

        Args:
            index: Index of the block.
            tokens: (B, T, D), any subset of the stream that enters the block.

        Returns:
            normed (B, T, D) = LN(x), and values (B, A, T, d) = W_v LN(x).
        """

    @abstractmethod
    def queries_keys(
        self, index: int, normed: torch.Tensor, stream: TokenStream, rotary: bool, first: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys of one block; keys for all its tokens.

        Args:
            index: Index of the block.
            normed: (B, prefix + N, D), as `values` returns it for the whole stream.
            stream: The grid and rotary table to use.
            rotary: True to apply the rotary embedding (no effect on towers without one).
            first: Number of leading tokens to compute queries of; None for all.

        Returns:
            q (B, A, first or prefix + N, d) and k (B, A, prefix + N, d), unscaled.
        """

    @abstractmethod
    def inner_norm(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        """The norm between heads and output projection (EVA-02's sub-LN), else the identity. (B, T, D)."""

    @abstractmethod
    def output_projection(self, index: int, merged: torch.Tensor) -> torch.Tensor:
        """A block's attention output projection with its bias and layer scale, if any. (B, T, D)."""

    @abstractmethod
    def mlp(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """tokens + MLP(LN(tokens)) of one block. (B, T, D)."""

    @abstractmethod
    def to_text_space(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, E): the tower's final norm and projection, applied per token; not normalized."""

    @abstractmethod
    def pool(self, stream: TokenStream) -> torch.Tensor:
        """The stream after the last block -> (B, E), the global embedding in the text space; not normalized.

        A tower with prefix tokens uses only these, so that `encode_image` need not make the others.
        """

    def block(self, index: int, stream: TokenStream) -> tuple[TokenStream, torch.Tensor, torch.Tensor]:
        """One whole block: attention and MLP, with their residuals.

        Returns:
            The stream after the block, and what a construction can reuse of its inside:
            normed (B, prefix + N, D) and values (B, A, prefix + N, d).
        """
        x, normed, v = self._attend(index, stream)
        return x.with_tokens(self.mlp(index, x.tokens)), normed, v

    def encode_image(self, images: torch.Tensor, final_mlp: bool = True) -> torch.Tensor:
        """(B, 3, H, W) normalized images -> (B, E), the global embedding (CLS); not normalized.

        Args:
            images: (B, 3, H, W) normalized images.
            final_mlp: False leaves the last block's MLP out, its attention and residual stay (Table 13).
        """
        stream = self.embed(images)
        for index in range(self.depth - 1):
            stream, _, _ = self.block(index, stream)
        last = self.depth - 1
        stream, _, _ = self._attend(last, stream, first=stream.prefix or None)  # `pool` uses no others
        return self.pool(stream.with_tokens(self.mlp(last, stream.tokens)) if final_mlp else stream)

    def _attend(
        self, index: int, stream: TokenStream, first: int | None = None
    ) -> tuple[TokenStream, torch.Tensor, torch.Tensor]:
        """One block up to its MLP: attention and residual; returns what `block` does.

        With `first`, the returned stream holds only that many leading tokens.
        """
        normed, v = self.values(index, stream.tokens)
        q, k = self.queries_keys(index, normed, stream, rotary=True, first=first)
        attended = merge_heads(attention(q, k, v))  # (B, first or prefix + N, D)
        x = stream.tokens[:, :first] + self.output_projection(index, self.inner_norm(index, attended))
        return stream.with_tokens(x), normed, v

    def grid_of(self, images: torch.Tensor) -> tuple[int, int]:
        """(h, w) of an input batch; DataError when it does not fit."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"{self.name} wants images of shape (B, 3, H, W); got {tuple(images.shape)}.")
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise DataError(
                f"{self.name} wants a height and width that its patch size {self.patch_size} divides; "
                f"got ({height}, {width}). Pad or resize the input."
            )
        return height // self.patch_size, width // self.patch_size


class TextTower(nn.Module, ABC):
    """A CLIP text encoder with its tokenizer."""

    name: str
    embed_dim: int  # E

    @abstractmethod
    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """T sentences -> (T, E), not normalized; never with a gradient."""

    @abstractmethod
    def forward(self, prompts: list[str]) -> torch.Tensor:
        """`encode_text` with a gradient, for weights that learn."""

    def tokens(self, prompts: list[str]) -> list[tuple[int, ...]] | None:
        """Token ids of each sentence: equal if and only if the sentences are one text to the encoder.

        None while that is not known: the tokenizer has to be fetched first, or the tower has none.
        """
        return None

    def cut(self, prompts: list[str]) -> list[bool] | None:
        """True for each sentence whose end is cut off at the context length; None as for `tokens`."""
        return None

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Compute blocks again in the backward pass instead of keeping them; a tower without blocks has no choice."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the tower's weights and tokenizer: other embeddings, other digest."""


class FoundationModel(nn.Module, ABC):
    """A frozen vision model whose patch correlations L_coherence follows."""

    name: str
    patch_size: int
    pixels: PixelStatistics

    @abstractmethod
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalized with `pixels` -> (B, C, h, w) patch features, not normalized."""


def require_multiple(model: FoundationModel, images: torch.Tensor) -> None:
    """DataError where a foundation model's patch size does not divide an input (B, 3, H, W)."""
    height, width = images.shape[-2:]
    if height % model.patch_size or width % model.patch_size:
        raise DataError(
            f"{model.name} wants a height and width that its patch size {model.patch_size} divides; "
            f"got ({height}, {width})."
        )


@dataclass
class Clip:
    """A whole CLIP: the two towers of one training run and the temperature between them."""

    image: ImageTower
    text: TextTower
    logit_scale: float
