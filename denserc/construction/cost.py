"""Cost of a forward or training step in multiply-accumulates, attention included."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from .dense import DenseEncoder


def flop_counter() -> FlopCounterMode:
    """Build PyTorch's FLOP counter, silent, and with the CPU's fused attention counted too.

    Two FLOPs are one multiply-accumulate. Matrix products and convolutions are counted, element-wise work is not.
    """
    # torch (at least 2.11 to 2.14) has formulas for CUDA's fused attentions only, so that a CPU's counts as nothing.
    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs) -> int:
    """QK^T and the product with V, of shapes (B, heads, N, d), (B, heads, M, d) and (B, heads, M, v)."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _attention_backward_flops(
    grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs
) -> int:
    """QK^T computed again, and the gradients of the weights, of Q, of K and of V."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (3 * width + 2 * value[3])


def count_multiply_accumulates(encoder: DenseEncoder, size: tuple[int, int]) -> dict[str, int]:
    """Count the multiply-accumulates of one dense forward, by operator.

    fvcore's counter works on a trace and does not include fused attention; `flop_counter` does.
    Nothing is computed: only shapes are propagated (meta device).

    Args:
        encoder: The dense encoder; it is copied, not changed.
        size: (H, W) of one input image.

    Returns:
        Operator -> count, and under "total" their sum.
    """
    shadow = copy.deepcopy(encoder).to("meta").eval()
    counter = flop_counter()
    with counter, torch.no_grad():
        shadow(torch.empty(1, 3, *size, device="meta"))
    by_operator = {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}
    return by_operator | {"total": counter.get_total_flops() // 2}
