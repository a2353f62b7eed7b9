"""The dense encoder: a CLIP image tower and a construction of dense features over its values.

X_dense = sum over the last k blocks l of Proj_l(A_p^(l) v_p^(l)), then the tower's final norm and
projection into the image-text space (unrolled CLS token; FACTS, section 1).

Shape letters as in `denserc.encoders.contract`; k the number of blocks used.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..encoders import ImageTower, TokenStream, attention, merge_heads
from ..structures import ConfigurationError
from .choices import Construction, GatePosition, Projection, ValueModule, ValueSource
from .gating import HeadSelectionGating


class DenseEncoder(nn.Module):
    """Images -> dense features in the image-text space, and the residual maps that F-ViT needs.

    Args:
        tower: the image tower; its weights are the construction's weights.
        construction: the named choices.

    Attributes:
        gates: the HSG module, or None.
        gradient_checkpointing: recompute each block in the backward pass instead of storing it.
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
        self.gradient_checkpointing = False

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
        """(B, 3, H, W) normalised images -> (B, E, h, w) dense features, not L2-normalised."""
        dense, _ = self.forward_with_maps(images, ())
        return dense

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised images -> (B, E), the tower's global embedding, not normalised."""
        return self.tower.encode_image(images)

    def forward_with_maps(
        self, images: torch.Tensor, blocks: Sequence[int], dense: bool = True
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """One pass for the dense features and the residual stream after some blocks.

        The map of the last block comes from the block without attention, x + Proj(v) and its MLP,
        as in the original F-ViT; no final norm is applied to any map.

        Args:
            images: (B, 3, H, W), normalised.
            blocks: indices of the blocks whose output is wanted, ascending.
            dense: whether the dense features are wanted.

        Returns:
            (B, E, h, w) dense features, or None; and one (B, D, h, w) map per index of `blocks`.
        """
        last = self.tower.depth - 1
        if list(blocks) != sorted(set(blocks)) or (blocks and not 0 <= blocks[0] <= blocks[-1] <= last):
            raise ConfigurationError(f"Block indices must ascend within 0..{last}; got {list(blocks)}.")
        first_used = self.tower.depth - self.construction.blocks_used
        stop = last if dense else min(last, max(blocks, default=-1) + 1)  # blocks that run whole

        stream = self.tower.embed(images)
        maps, features = {}, None
        for index in range(stop):
            before = stream
            stream, normed, v = self._whole_block(index, before)
            if index in blocks:
                maps[index] = stream.to_map(stream.patches)
            if dense and index >= first_used:
                part = self._project(index, index - first_used, before, normed, v)
                features = part if features is None else features + part
        if dense:
            features = self._finish(stream, features)
        if last in blocks:
            maps[last] = stream.to_map(self.tower.mlp(last, self._residual_values(stream)))
        return features, [maps[index] for index in blocks]

    def _whole_block(self, index: int, stream: TokenStream):
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self.tower.block, index, stream, use_reentrant=False)
        return self.tower.block(index, stream)

    def _finish(self, stream: TokenStream, features: torch.Tensor | None) -> torch.Tensor:
        """The last block, of which only what the construction needs is computed, and the head."""
        choice, tower, last = self.construction, self.tower, self.tower.depth - 1
        if choice.values is ValueSource.LAST_BLOCK_RESIDUAL and choice.module is ValueModule.NONE:
            x = self._residual_values(stream)
        else:
            mixes = choice.module in (ValueModule.QK_ATTENTION, ValueModule.QQ_ATTENTION)
            normed, v = tower.values(last, stream.tokens if mixes else stream.patches)
            x = self._project(last, choice.blocks_used - 1, stream, normed, v)
            x = x if features is None else features + x
            if choice.projection is Projection.LAST:
                x = tower.output_projection(last, x)
            if choice.values is ValueSource.LAST_BLOCK_RESIDUAL:
                x = stream.patches + x
        if choice.final_mlp:
            x = tower.mlp(last, x)
        return stream.to_map(tower.to_text_space(x))  # (B, E, h, w)

    def _residual_values(self, stream: TokenStream) -> torch.Tensor:
        """(B, N, D): x + Proj(v) of the last block's patches."""
        last = self.tower.depth - 1
        _, v = self.tower.values(last, stream.patches)
        merged = self.tower.inner_norm(last, merge_heads(v))
        return stream.patches + self.tower.output_projection(last, merged)

    def _project(
        self, index: int, position: int, stream: TokenStream, normed: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """One block's part of the sum, (B, N, D); before the projection when that is the last block's for all.

        Args:
            index: the block.
            position: its place among the blocks used, from 0.
            stream: what enters the block.
            normed, v: of all tokens, or of the patches alone where nothing mixes over tokens.
        """
        choice, tower = self.construction, self.tower
        n = stream.patches.shape[1]
        gate = None
        if choice.module is ValueModule.QK_ATTENTION:
            q, k = tower.queries_keys(index, normed, stream, rotary=True)
            v = attention(q[:, :, -n:], k, v)
        elif choice.module is ValueModule.QQ_ATTENTION:
            q, _ = tower.queries_keys(index, normed, stream, rotary=False)
            v = attention(q[:, :, -n:], q, v, scale=1.0)
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
