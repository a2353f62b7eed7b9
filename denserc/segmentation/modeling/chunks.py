"""Computing in parts, where memory and not arithmetic is the limit."""

from collections.abc import Callable

import torch


def in_chunks(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """`function(x)`, in parts of at most `size` along `dim` where no gradient is recorded.

    Args:
        function: Maps a part to a part of the same length along `dim`; parts do not see each other.
        size: At least 1.
    """
    if torch.is_grad_enabled() or x.shape[dim] <= size:
        return function(x)
    return torch.cat([function(part) for part in x.split(max(1, size), dim)], dim)
