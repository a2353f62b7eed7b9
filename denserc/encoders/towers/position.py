"""Position embeddings at sizes other than the trained one."""

import functools
from enum import Enum

import torch
from timm.layers import build_rotary_pos_embed
from torch._guards import detect_fake_mode
from torch.nn import functional as F

_CPU = torch.device("cpu")


class PositionResize(Enum):
    """Resizing of learned position embeddings to another grid; bicubic, align_corners=False, both."""

    BICUBIC = "bicubic"  # as in CLIPSelf, DeCLIP and F-ViT
    BICUBIC_ANTIALIAS = "bicubic_antialias"  # timm's way; at twice EVA-02's training size features change by about 3%


def resize_position_embedding(
    embedding: torch.Tensor,
    grid: tuple[int, int],
    prefix: int,
    resize: PositionResize = PositionResize.BICUBIC,
) -> torch.Tensor:
    """A learned absolute position embedding on another grid.

    Args:
        embedding: (1, prefix + n * n, D), the trained embedding of a square grid.
        grid: (h, w) wanted.
        prefix: Leading rows that belong to no patch and stay as they are.
        resize: Interpolation of the table.

    Returns:
        (1, prefix + h * w, D)
    """
    head, patches = embedding[:, :prefix], embedding[:, prefix:]
    side = round(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1]:
        raise ValueError(f"expected a square grid of trained positions, got {patches.shape[1]}")
    if (side, side) == tuple(grid):
        return embedding
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, side, side)
    square = square.to(torch.promote_types(square.dtype, torch.float32))
    antialias = resize is PositionResize.BICUBIC_ANTIALIAS
    resized = F.interpolate(square, size=tuple(grid), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([head, resized.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


def rotary_table(
    grid: tuple[int, int],
    head_dim: int,
    reference: tuple[int, int] | None,
    temperature: float = 10000.0,
    *,
    prefix: int = 0,
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """EVA-02's axial rotary table, positions rescaled so that `reference` is the grid's extent.

    Made in float32 whatever the model's precision, as in CLIPSelf and DeCLIP, and converted. It depends on nothing that
    learns, so the last few are kept, outside of any model: no state dict has them. Do not write to one. While a
    program is traced (torch.export, torch.compile) none is kept or taken: it would be no tensor afterwards.

    Args:
        prefix: Tokens before the patches, which have no position: their rows rotate by nothing, so that a stream is
            rotated whole, without taking it apart.

    Returns:
        (prefix + h * w, 2 * head_dim): sines then cosines, the layout of timm's `apply_rot_embed_cat`.
    """
    traced = torch.compiler.is_compiling() or detect_fake_mode() is not None
    make = _make_table if traced else _kept_table
    return make(tuple(grid), head_dim, reference, temperature, prefix, device, dtype)


@torch.inference_mode(False)  # a table first made in inference mode could not be used in training
def _make_table(
    grid: tuple[int, int],
    head_dim: int,
    reference: tuple[int, int] | None,
    temperature: float,
    prefix: int,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    sin, cos = build_rotary_pos_embed(
        list(grid),
        dim=head_dim,
        temperature=temperature,
        in_pixels=False,
        ref_feat_shape=list(reference) if reference else None,
        device=_CPU,
    )
    table = torch.cat([sin, cos], dim=-1)
    still = torch.cat([torch.zeros(prefix, head_dim), torch.ones(prefix, head_dim)], dim=-1)
    return torch.cat([still, table]).to(device, dtype)


_kept_table = functools.lru_cache(maxsize=8)(_make_table)
