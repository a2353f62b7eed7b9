"""Share of a dense feature that comes from unrelated patches: Eq. 16-19 of the paper's supplement, measured.

The fused feature of patch r (Eq. 16) is a sum over blocks l and tokens j of S_rj^(l) P^(l) v_j^(l). Here it is taken
apart, from the attention matrices themselves, into parts that add up to it:

    feature_r = on + off + class_token + bias + residual

- off: tokens j in U_r, Eq. 17's T_off. U_r is a choice (`Unrelated`): by default the patches that the annotated region
  of r does not touch at all, so a patch on the border counts as on-target; or, Eq. 17 to the letter, all j != r.
- on: all other patches. Eq. 17 writes T_on as this minus the teacher's own map of the same value, M v_r. M is not
  observable apart from eps_r = c_r - M v_r, but Eq. 18 needs only their sum: with D_r = feature_r - off - c_r, which
  is T_on - eps_r for whatever M,
      |feature_r - c_r|^2 = |D_r|^2 + |off|^2 + 2 <D_r, off>      exactly (`denserc.analysis.alignment`).
- class_token: the share of a class token among the keys, which the paper's sum over patches does not have. It belongs
  to no place, so it is counted neither as on- nor as off-target.
- bias: of the norms and projections. residual: the stream x of a construction that keeps it (CLIPSelf). That stream
  has been mixed over patches by all earlier blocks, and so have the values themselves; the analysis of the paper
  does not count this, and neither do these numbers.

EVA-02's LayerNorm between heads and projection and the final norm are split with the whole feature's statistics
(`Linearised`). A final MLP is left out: parts are those of the feature that enters it.

Shape letters: A heads, N patches, T = prefix + N tokens, D the tower's width, E the text space's, R measured patches.
"""

from dataclasses import dataclass, fields
from enum import Enum

import torch

from ..construction.choices import Projection, ValueModule, ValueSource
from ..construction.dense import DenseEncoder
from ..encoders import TokenStream, merge_heads
from ..structures import ConfigurationError, choose
from .linearised import Linearised


class Unrelated(Enum):
    """Patches that are unrelated to patch r: the set U_r of Eq. 17."""

    OUTSIDE_REGION = "outside_region"  # those that the region of r does not touch
    OTHER_PATCHES = "other_patches"  # all but r itself


def unrelated_patches(
    touched: torch.Tensor, rows: torch.Tensor, owner: torch.Tensor, reading: Unrelated | str
) -> torch.Tensor:
    """U_r of every measured patch.

    Args:
        touched: (K, N) bool, the patches that each of K regions touches.
        rows: (R,) int64, the measured patches.
        owner: (R,) int64, the region of each.
        reading: Patches that count.

    Returns:
        (R, N) bool.
    """
    if choose(Unrelated, reading, "unrelated") is Unrelated.OUTSIDE_REGION:
        return ~touched[owner]
    return torch.arange(touched.shape[1], device=rows.device) != rows[:, None]


@dataclass
class Parts:
    """The parts of the features of R patches, before the final norm (and before a final MLP).

    Args:
        on, off: (k, R, D), block by block, the last block last.
        class_token, bias, residual: (R, D) contributions of the class token, biases and residual stream.
        diagonal: (R,), Eq. 19: sum over blocks and j in U_r of |S_rj P v_j|^2, all products between patches dropped.
        mass_off, mass_class_token: (R,) attention on U_r and on the class token, mean over heads and
            blocks. The rows of `csa_attention` add up to 2.
    """

    on: torch.Tensor
    off: torch.Tensor
    class_token: torch.Tensor
    bias: torch.Tensor
    residual: torch.Tensor
    diagonal: torch.Tensor
    mass_off: torch.Tensor
    mass_class_token: torch.Tensor

    @property
    def whole(self) -> torch.Tensor:
        """(R, D): the construction's feature before the final norm."""
        return self.on.sum(0) + self.off.sum(0) + self.class_token + self.bias + self.residual


@torch.no_grad()
def decompose(
    encoder: DenseEncoder, image: torch.Tensor, rows: torch.Tensor, unrelated: torch.Tensor, *, chunk: int = 256
) -> Parts:
    """The parts of a construction's features at some patches of one image.

    Args:
        encoder: Tower and construction, in eval mode.
        image: (1, 3, H, W), normalized.
        rows: (R,) int64, row-major indices of the measured patches r.
        unrelated: (R, N) bool, U_r of each; r itself may not be in it.
        chunk: Number of attention rows at a time: A x chunk x T numbers are held at once, never A x N x N.

    Raises:
        ConfigurationError: r is in its own U_r, or the tower's inner norm is none that can be split.
    """
    if unrelated[torch.arange(len(rows)), rows].any():
        raise ConfigurationError("A patch cannot be unrelated to itself.")
    choice, tower = encoder.construction, encoder.tower
    first, stream, blocks = tower.depth - choice.blocks_used, tower.embed(image), []
    for index in range(tower.depth):
        if index >= first:
            split = _mixed_block if choice.module.mixes else _unmixed_block
            blocks.append(split(encoder, index, stream, rows, unrelated, chunk))
        if index < tower.depth - 1:
            stream = tower.block(index, stream)[0]
    # With one projection for all blocks its bias is added once, not once a block.
    empty = torch.zeros_like(stream.patches[0, rows])
    shared = tower.output_projection(tower.depth - 1, empty) if choice.projection is Projection.LAST else empty
    residual = stream.patches[0, rows] if choice.values is ValueSource.LAST_BLOCK_RESIDUAL else empty
    return Parts(
        on=torch.stack([b.on for b in blocks]),
        off=torch.stack([b.off for b in blocks]),
        class_token=sum(b.class_token for b in blocks),
        bias=sum(b.bias for b in blocks) - (len(blocks) - 1) * shared,
        residual=residual,
        diagonal=sum(b.diagonal for b in blocks),
        mass_off=sum(b.mass_off for b in blocks) / len(blocks),
        mass_class_token=sum(b.mass_class_token for b in blocks) / len(blocks),
    )


@dataclass
class _BlockParts:
    """One block's contribution to each of `Parts`, shapes without k."""

    on: torch.Tensor
    off: torch.Tensor
    class_token: torch.Tensor
    bias: torch.Tensor
    diagonal: torch.Tensor
    mass_off: torch.Tensor
    mass_class_token: torch.Tensor


def _after_values(encoder: DenseEncoder, index: int):
    """Apply the layers after the merged heads of one block: inner norm and output projection, (..., D) -> (..., D)."""
    tower = encoder.tower
    projection = tower.depth - 1 if encoder.construction.projection is Projection.LAST else index
    return lambda merged: tower.output_projection(projection, tower.inner_norm(index, merged))


def _unmixed_block(
    encoder: DenseEncoder, index: int, stream: TokenStream, rows: torch.Tensor, unrelated: torch.Tensor, chunk: int
) -> _BlockParts:
    """S is diagonal: everything but the bias is the patch's own, exactly."""
    choice, tower = encoder.construction, encoder.tower
    position = index - (tower.depth - choice.blocks_used)
    normed, v = tower.values(index, stream.patches)
    parts = [encoder._project(index, position, stream, normed, x)[0, rows] for x in (v, torch.zeros_like(v))]
    if choice.projection is Projection.LAST:
        parts = [tower.output_projection(tower.depth - 1, x) for x in parts]
    whole, bias = parts
    none, zeros = torch.zeros_like(whole), whole.new_zeros(len(rows))
    return _BlockParts(whole - bias, none, none, bias, zeros, zeros, zeros)


def _mixed_block(
    encoder: DenseEncoder, index: int, stream: TokenStream, rows: torch.Tensor, unrelated: torch.Tensor, chunk: int
) -> _BlockParts:
    """S is the attention matrix of each head; its rows are restricted to the patches of each part."""
    tower, prefix = encoder.tower, stream.prefix
    normed, v = tower.values(index, stream.tokens)
    after = Linearised(_after_values(encoder, index), normed)
    logits = _attention_inputs(encoder, index, normed, v, stream)
    v = v[0]  # (A, T, d)
    gram = _head_gram(after, v[:, prefix:])  # (N, A, A)
    results = []
    for picked, apart in zip(rows.split(chunk), unrelated.split(chunk), strict=True):
        weights = sum(
            (left[0, :, prefix + picked] @ right[0].transpose(1, 2) * scale).softmax(-1)
            for left, right, scale in logits
        )  # (A, chunk, T)
        is_off = torch.cat([apart.new_zeros(len(apart), prefix), apart], dim=1)
        is_class_token = torch.arange(weights.shape[-1], device=rows.device) < prefix
        on, off, token = (
            merge_heads((weights * part @ v)[None])[0]  # (chunk, D)
            for part in (~is_off & ~is_class_token, is_off, is_class_token)
        )
        sigma = after.scale(on + off + token)  # (chunk, 1)
        single = weights[:, :, prefix:] * apart  # (A, chunk, N)
        squares = torch.einsum("acj,jab,bcj->c", single, gram, single) * sigma[:, 0] ** 2
        results.append(
            _BlockParts(
                *(after.image(part) * sigma for part in (on, off, token)),
                bias=after.bias.expand(len(picked), -1),
                diagonal=squares,
                mass_off=single.sum(-1).mean(0),
                mass_class_token=weights[:, :, :prefix].sum(-1).mean(0),
            )
        )
    return _BlockParts(*(torch.cat([getattr(r, f.name) for r in results]) for f in fields(_BlockParts)))


def _head_gram(after: Linearised, v: torch.Tensor) -> torch.Tensor:
    """(A, N, d) values -> (N, A, A): products of the heads' images P_a v_j^a of one patch, without 1 / sigma."""
    images = []
    for head in range(len(v)):
        alone = torch.zeros_like(v)
        alone[head] = v[head]
        images.append(after.image(merge_heads(alone[None])[0]))  # (N, D)
    stacked = torch.stack(images, dim=1)  # (N, A, D)
    return stacked @ stacked.transpose(1, 2)


def _attention_inputs(
    encoder: DenseEncoder, index: int, normed: torch.Tensor, v: torch.Tensor, stream: TokenStream
) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """Factors of each softmax's argument, as in `DenseEncoder`; the sum of the softmaxes is S.

    Returns:
        For each softmax: left and right factor (1, A, T, d), and the scale of their product.
    """
    module = encoder.construction.module
    if module is ValueModule.QK_ATTENTION:
        q, k = encoder.tower.queries_keys(index, normed, stream, rotary=True)
        return [(q, k, q.shape[-1] ** -0.5)]
    parts = encoder._correlated_parts(index, stream, normed, v)
    if module is ValueModule.QKV_ATTENTION:
        joined = torch.cat(parts, dim=-1)  # one softmax, of the mean of the products
        return [(joined, joined, 1 / len(parts))]
    return [(part, part, 1.0) for part in parts]
