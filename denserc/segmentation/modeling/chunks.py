"""Computing in parts, where memory and not arithmetic is the limit."""

from collections.abc import Callable

import torch

from ...construction import GradientCheckpointing, run_block


def in_chunks(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    dim: int,
    size: int,
    checkpointing: GradientCheckpointing = GradientCheckpointing.NONE,
) -> torch.Tensor:
    """`function(x)`, in parts of at most `size` along `dim` where no gradient is recorded or parts are recomputed.

    Args:
        function: Maps a part to a part of the same length along `dim`; parts do not depend on each other.
        x: Tensor of any shape.
        dim: Dimension that is cut.
        size: At least 1.
        checkpointing: Computation that a part repeats in its backward pass.
    """
    whole = torch.is_grad_enabled() and checkpointing is GradientCheckpointing.NONE
    if whole or x.shape[dim] <= size:
        return run_block(function, checkpointing, x)
    return torch.cat([run_block(function, checkpointing, part) for part in x.split(max(1, size), dim)], dim)
