"""The dense encoder: a CLIP image tower and a construction of dense features over its values.

X_dense = sum over the last k blocks l of Proj_l(A_p^(l) v_p^(l)), then the tower's final norm and
projection into the image-text space (the unrolled CLS token).

Shape letters as in `denserc.encoders.towers.base`; k the number of blocks used.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from ..encoders import ImageTower, TokenStream, attention, merge_heads
from ..structures import ConfigurationError
from .choices import Construction, GatePosition, Projection, ValueModule, ValueSource
from .gating import HeadSelectionGating
from .gradient_checkpointing import GradientCheckpointing, run_block


class DenseEncoder(nn.Module):
    """Images -> dense features in the image-text space, and the residual maps that F-ViT needs.

    Args:
        tower: The image tower; its weights are the construction's weights.
        construction: The named choices.

    Attributes:
        gates: The HSG module, or None.
        gradient_checkpointing: Part of the blocks that a backward pass recomputes, in eval mode too.
    """

    def __init__(self, tower: ImageTower, construction: Construction):
        super().__init__()
        if construction.blocks_used > tower.depth:
            raise ConfigurationError(
                f"The construction uses the values of {construction.blocks_used} blocks, but {tower.name} has "
                f"{tower.depth}."
            )
        self.tower = tower
        self.construction = construction
        self.gates = None
        if construction.num_gates:
            self.gates = HeadSelectionGating(
                width=tower.width, num_heads=tower.num_heads, num_gates=construction.num_gates
            )
        self.gradient_checkpointing = GradientCheckpointing.NONE

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels: the stride of the dense map."""
        return self.tower.patch_size

    @property
    def embed_dim(self) -> int:
        """E, the channels of the dense map."""
        return self.tower.embed_dim

    @property
    def width(self) -> int:
        """D, the channels of the residual maps."""
        return self.tower.width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalized images -> (B, E, h, w) dense features, not L2-normalized."""
        return self._run(images, (), dense=True)[0]

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalized images -> (B, E), the tower's global embedding, not normalized."""
        return self.tower.encode_image(images)

    def forward_with_maps(
        self, images: torch.Tensor, blocks: Sequence[int], dense: bool = True
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """One pass for the dense features and the residual stream after some blocks.

        The map of the last block comes from the block without attention, x + Proj(v) and its MLP,
        as in MMDetection F-ViT; no final norm is applied to any map.

        Args:
            images: (B, 3, H, W), normalized.
            blocks: Indices of the blocks whose output is returned, ascending.
            dense: True to compute the dense features.

        Returns:
            (B, E, h, w) dense features, or None; and one (B, D, h, w) map per index of `blocks`.
        """
        features, maps, _ = self._run(images, blocks, dense)
        return features, maps

    def forward_with_context(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The dense features, and what the last block correlates with itself: DeCLIP's context features.

        Args:
            images: (B, 3, H, W), normalized.

        Returns:
            (B, E, h, w) dense features, and context (B, G, N, C), not normalized. With one part (q, k or v), G = 1 and
            C = D: the heads are concatenated. With several parts, G = A: each head concatenates the unit vectors of its
            parts, so that the correlation of two tokens is the mean of the parts' correlations.

        Raises:
            ConfigurationError: The construction has no attention of q, k or v with themselves.
        """
        if not self.construction.module.self_correlated:
            names = [module.value for module in ValueModule if module.self_correlated]
            raise ConfigurationError(
                f"Context features are those of a self-correlating attention ({', '.join(names)}); this construction's "
                f"module is {self.construction.module.value!r}."
            )
        features, _, context = self._run(images, (), dense=True)
        return features, context

    def _run(self, images: torch.Tensor, blocks: Sequence[int], dense: bool):
        """Dense features or None, maps, and the last block's context features where the construction has some."""
        last = self.tower.depth - 1
        if list(blocks) != sorted(set(blocks)) or (blocks and not 0 <= blocks[0] <= blocks[-1] <= last):
            raise ConfigurationError(f"Block indices must ascend within 0..{last}; got {list(blocks)}.")
        first_used = self.tower.depth - self.construction.blocks_used
        stop = last if dense else min(last, max(blocks, default=-1) + 1)  # blocks that run whole

        stream = self.tower.embed(images)
        maps, features, context = {}, None, None
        for index in range(stop):
            position = index - first_used if dense and index >= first_used else None
            whole = partial(self._whole_block, index, position, stream)
            tokens, part = self.tower.visit(index, whole, stream.tokens)
            stream = stream.with_tokens(tokens)
            if index in blocks:
                maps[index] = stream.to_map(stream.patches)
            if part is not None:
                features = part if features is None else features + part
        if dense:
            finish = partial(self._finish, stream)
            features, context = self.tower.visit(last, finish, stream.tokens, features)
        if last in blocks:
            (patches,) = self.tower.visit(last, partial(self._last_map, stream), stream.tokens)
            maps[last] = stream.to_map(patches)
        return features, [maps[index] for index in blocks], context

    def _whole_block(
        self, index: int, position: int | None, stream: TokenStream, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens after a block, and its part of the sum; None without a position among the blocks used."""
        before = stream.with_tokens(tokens)
        after, normed, v = run_block(self.tower.block, self.gradient_checkpointing, index, before)
        part = None if position is None else self._project(index, position, before, normed, v)
        return after.tokens, part

    def _last_map(self, stream: TokenStream, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        last = self.tower.depth - 1
        return (self.tower.mlp(last, self._residual_values(stream.with_tokens(tokens))),)

    def _finish(
        self, stream: TokenStream, tokens: torch.Tensor, features: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The last block, of which only what the construction needs is computed, and the head; context features."""
        stream = stream.with_tokens(tokens)
        choice, tower, last = self.construction, self.tower, self.tower.depth - 1
        context = None
        if choice.values is ValueSource.LAST_BLOCK_RESIDUAL and choice.module is ValueModule.NONE:
            x = self._residual_values(stream)
        else:
            normed, v = tower.values(last, stream.tokens if choice.module.mixes else stream.patches)
            parts = self._correlated_parts(last, stream, normed, v) if choice.module.self_correlated else None
            x = self._project(last, choice.blocks_used - 1, stream, normed, v, parts)
            if parts is not None:
                context = _context([part[:, :, stream.prefix :] for part in parts])
            x = x if features is None else features + x
            if choice.projection is Projection.LAST:
                x = tower.output_projection(last, x)
            if choice.values is ValueSource.LAST_BLOCK_RESIDUAL:
                x = stream.patches + x
            elif choice.values is ValueSource.LAST_BLOCK_CLASS_RESIDUAL:
                if not stream.prefix:
                    raise ConfigurationError(
                        f"The values {choice.values.value!r} need a class token, which {tower.name} does not have."
                    )
                x = stream.tokens[:, :1] + x
        if choice.final_mlp:
            x = tower.mlp(last, x)
        return stream.to_map(tower.to_text_space(x)), context  # (B, E, h, w)

    def _residual_values(self, stream: TokenStream) -> torch.Tensor:
        """(B, N, D): x + Proj(v) of the last block's patches."""
        last = self.tower.depth - 1
        _, v = self.tower.values(last, stream.patches)
        merged = self.tower.inner_norm(last, merge_heads(v))
        return stream.patches + self.tower.output_projection(last, merged)

    def _project(
        self,
        index: int,
        position: int,
        stream: TokenStream,
        normed: torch.Tensor,
        v: torch.Tensor,
        parts: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """One block's part of the sum, (B, N, D); before the projection when that is the last block's for all.

        Args:
            index: Index of the block.
            position: Its position among the blocks used, from 0.
            stream: Input of the block.
            normed, v: Normalized input and values of all tokens, or of the patches only where nothing mixes tokens.
            parts: Factors of the self-correlation that were computed before.
        """
        choice, tower = self.construction, self.tower
        n = stream.patches.shape[1]
        gate = None
        if choice.module is ValueModule.QK_ATTENTION:
            q, k = tower.queries_keys(index, normed, stream, rotary=True)
            v = attention(q[:, :, -n:], k, v)
        elif choice.module.self_correlated:
            v = self._self_attention(parts or self._correlated_parts(index, stream, normed, v), v, n)
        else:
            v, normed = v[:, :, -n:], normed[:, -n:]
            if choice.module is ValueModule.HSG:
                gate = self.gates(position, normed)  # (B, A, N, 1)
        if gate is not None and choice.gate_position is GatePosition.BEFORE_NORM:
            v = v * gate
        merged = tower.inner_norm(index, merge_heads(v))  # (B, N, D)
        if gate is not None and choice.gate_position is GatePosition.AFTER_NORM:
            merged = merge_heads(merged.unflatten(-1, (tower.num_heads, -1)).transpose(1, 2) * gate)
        return merged if choice.projection is Projection.LAST else tower.output_projection(index, merged)

    def _correlated_parts(
        self, index: int, stream: TokenStream, normed: torch.Tensor, v: torch.Tensor
    ) -> list[torch.Tensor]:
        """Those of q, k, v that the construction correlates with themselves, each (B, A, prefix + N, d)."""
        chosen = self.construction.module.self_correlated
        parts = {"v": v}
        if chosen != "v":
            parts["q"], parts["k"] = self.tower.queries_keys(index, normed, stream, rotary=False)
        return [parts[name] for name in chosen]

    def _self_attention(self, parts: list[torch.Tensor], v: torch.Tensor, n: int) -> torch.Tensor:
        """Attention of the n patches by correlations of parts with themselves, unscaled: (B, A, N, d)."""
        if self.construction.module is ValueModule.QKV_ATTENTION:
            joined = torch.cat(parts, dim=-1)  # the product of the joined is the sum of the products
            return attention(joined[:, :, -n:], joined, v, scale=1 / len(parts))
        return sum(attention(part[:, :, -n:], part, v, scale=1.0) for part in parts)


def _context(parts: list[torch.Tensor]) -> torch.Tensor:
    """q, k or v of the patches, each (B, A, N, d) -> context features (B, G, N, C), see `forward_with_context`."""
    if len(parts) == 1:
        return merge_heads(parts[0]).unsqueeze(1)
    return torch.cat([F.normalize(part, dim=-1) for part in parts], dim=-1)
