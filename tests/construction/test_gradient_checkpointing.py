"""Gradient checkpointing: the tensors kept for the backward pass, and the same results after recomputation."""

import pytest
import torch

from denserc.construction import Construction, DenseEncoder, GradientCheckpointing, checkpointing_that_fits, kept_bytes
from denserc.encoders.towers.base import attention

KINDS = (GradientCheckpointing.NONE, GradientCheckpointing.SELECTIVE, GradientCheckpointing.FULL)


@pytest.fixture
def encoder(miniature):
    return DenseEncoder(miniature.image, Construction()).train()


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("construction", ["denserc", "clipself", "declip"])
def test_the_gradient_is_the_same_to_the_bit(miniature, construction, autocast):
    encoder = DenseEncoder(miniature.image, Construction.named(construction)).train()
    images, gradients = torch.randn(2, 3, 64, 64), []
    for encoder.gradient_checkpointing in KINDS:
        encoder.zero_grad()
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            encoder(images).float().square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        assert all(torch.equal(value, other[name]) for name, value in gradients[0].items())


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] = self.counts.get(func.overloadpacket.__name__, 0) + 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_selective_repeats_no_product_and_full_repeats_all(encoder, kind):
    encoder.gradient_checkpointing = kind
    with Calls() as forward:
        loss = encoder(torch.randn(1, 3, 64, 64)).square().mean()
    with Calls() as backward:
        loss.backward()
    attended = [name for name in forward.counts if name.startswith("_scaled_dot_product")]
    assert attended
    repeated = sum(backward.counts.get(name, 0) for name in attended)
    assert repeated == (encoder.tower.depth - 1 if kind is GradientCheckpointing.FULL else 0)
    assert ("addmm" in backward.counts) == (kind is GradientCheckpointing.FULL)
    assert ("native_layer_norm" in backward.counts) == (kind is not GradientCheckpointing.NONE)


def test_a_tower_in_eval_mode_repeats_too(encoder):
    """CAT-Seg trains parts of a tower that stays in eval mode."""
    encoder.gradient_checkpointing = GradientCheckpointing.SELECTIVE
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(images)
    encoder.eval()
    with Calls() as calls:
        features = encoder(images)
    assert torch.equal(features, expected)
    before = dict(calls.counts)
    with calls:
        features.sum().backward()
    assert calls.counts["native_layer_norm"] > before["native_layer_norm"]


def test_what_is_kept_is_counted(encoder):
    """Compared with the tensors that autograd saves, at a size that is not used elsewhere."""
    own, kept = {p.untyped_storage().data_ptr() for p in encoder.parameters()}, {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = encoder(torch.zeros(1, 3, 128, 128))
    expected = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)
    tokens = features.shape[-1] * features.shape[-2]
    assert kept_bytes(encoder, tokens) == pytest.approx(expected, rel=0.03)
    assert encoder.gradient_checkpointing is GradientCheckpointing.NONE


def test_the_least_that_fits_is_taken():
    names = [checkpointing_that_fits(100, free).value for free in (200, 126, 124, 70, 60, 0, -5)]
    assert names == ["none", "none", "selective", "selective", "full", "full", "full"]


def test_this_pytorchs_attention_is_one_that_selective_knows():
    q = torch.randn(1, 2, 8, 4, requires_grad=True)
    with Calls() as calls:
        attention(q, q, q)
    from denserc.construction.gradient_checkpointing import _ATTENTION

    assert {name for name in calls.counts if "attention" in name} <= {op.overloadpacket.__name__ for op in _ATTENTION}
