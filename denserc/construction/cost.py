"""What a dense forward costs in multiply-accumulates, attention included."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from .dense import DenseEncoder


def count_multiply_accumulates(encoder: DenseEncoder, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-accumulates of one dense forward, by operator.

    PyTorch's own counter sees both products of every attention, fused or not; fvcore's, which works
    on a trace, does not see fused attention at all. Matrix products and convolutions are counted,
    element-wise work is not. Nothing is computed: the count runs on shapes alone (meta device).

    Args:
        encoder: the dense encoder; it is copied, not changed.
        size: (H, W) of one input image.

    Returns:
        Operator -> count, and under "total" their sum.
    """
    shadow = copy.deepcopy(encoder).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shadow(torch.empty(1, 3, *size, device="meta"))
    by_operator = {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}
    return by_operator | {"total": counter.get_total_flops() // 2}
