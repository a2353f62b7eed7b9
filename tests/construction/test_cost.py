"""The cost of the dense forward of ViT-B/16 at 1024 x 1024, counted from shapes only."""

import pytest
import torch
from torch.nn import functional as F

from denserc.construction import Construction, DenseEncoder
from denserc.construction.cost import count_multiply_accumulates, flop_counter
from denserc.encoders import build_clip


@pytest.fixture(scope="module")
def tower():
    return build_clip("EVA02-B-16", random_init=True).image


def total(tower, name, **overrides):
    return count_multiply_accumulates(DenseEncoder(tower, Construction.named(name, **overrides)), (1024, 1024))["total"]


def test_hsg_adds_exactly_9216_parameters_to_vit_b16(tower):
    gates = DenseEncoder(tower, Construction()).gates
    assert sum(p.numel() for p in gates.parameters()) == 9216
    per_layer = DenseEncoder(tower, Construction(shared_gate=False)).gates
    assert sum(p.numel() for p in per_layer.parameters()) == 3 * 9216


def test_the_count_is_the_arithmetic_written_out(tower):
    n, d, hidden, e, heads = 64 * 64, 768, 2048, 512, 12
    block = (n + 1) * (4 * d * d + 3 * d * hidden) + 2 * (n + 1) ** 2 * d  # projections, SwiGLU, both products
    last_values, projections = n * d * d, 3 * n * d * d
    gates = 3 * n * d * heads
    patches, head = n * 3 * 16 * 16 * d, n * d * e
    assert total(tower, "denserc") == 11 * block + last_values + gates + projections + patches + head
    assert total(tower, "denserc") - total(tower, "denserc", projection="last") == 2 * n * d * d


def test_cost_is_below_636_and_with_shared_projection_below_612(tower):
    assert total(tower, "denserc") < 617e9 < 636e9
    assert total(tower, "denserc", projection="last") < 612e9


def test_the_last_block_computes_only_what_the_choice_needs(tower):
    costs = [total(tower, name) for name in ("last_block_values", "denserc", "clipself", "declip", "denserc_qk")]
    assert costs == sorted(costs)


def test_fused_attention_counts_as_its_products():
    q, k = (torch.randn(2, 3, tokens, 8, requires_grad=True) for tokens in (5, 7))
    v = torch.randn(2, 3, 7, 16, requires_grad=True)
    qk, weighted = 2 * 3 * 5 * 7 * 8, 2 * 3 * 5 * 7 * 16  # multiply-accumulates of QK^T, of the product with V
    with flop_counter() as counter:
        out = F.scaled_dot_product_attention(q, k, v)
    assert counter.get_total_flops() == 2 * (qk + weighted)
    with flop_counter() as counter:
        out.sum().backward()
    computed_again = counter.get_total_flops() - 2 * 2 * (qk + weighted)
    assert computed_again in (0, 2 * qk)  # only by fused attention; PyTorch decides which one runs
    same = torch.randn(2, 3, 5, 8, requires_grad=True)
    with flop_counter() as counter:
        F.scaled_dot_product_attention(same, same, same).sum().backward()
    assert any("flash_attention_for_cpu_backward" in str(op) for op in counter.get_flop_counts()["Global"])
    assert counter.get_total_flops() == 2 * 7 * 2 * 3 * 5 * 5 * 8
