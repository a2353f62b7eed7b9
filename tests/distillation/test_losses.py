"""The losses: against their definitions, against arrays of CLIPSelf and DeCLIP, and in edge cases."""

import pytest
import torch
import torch.nn.functional as F

from denserc.distillation.losses import CoherenceReading, PooledMap, coherence_loss, pool_regions, semantics_loss

READINGS = list(CoherenceReading)


def direct(student, target, reading, mask=None):
    """Eq. 20 as it is written, in float64, image by image."""
    losses = []
    for i in range(len(student)):
        keep = slice(None) if mask is None else mask[i]
        x, y = F.normalize(student[i][keep].double(), dim=-1), F.normalize(target[i][keep].double(), dim=-1)
        difference = x @ x.T - y @ y.T
        if reading is CoherenceReading.MSE:
            losses.append(difference.square().mean())
        elif reading is CoherenceReading.ROW_NORM:
            losses.append(difference.norm(dim=1).mean())
        else:
            losses.append(torch.linalg.matrix_norm(difference) / len(x) ** 2)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("tokens", [10, 200])  # below and above the widths: both forms
@pytest.mark.parametrize("masked", [False, True])
def test_coherence_equals_its_definition(reading, tokens, masked):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, tokens, 24, generator=generator)
    target = torch.randn(3, tokens, 40, generator=generator)
    mask = torch.rand(3, tokens, generator=generator) > 0.3 if masked else None
    given = coherence_loss(student, target, reading, mask)
    assert given.dtype == torch.float32
    torch.testing.assert_close(given.double(), direct(student, target, reading, mask), rtol=2e-6, atol=0)
    exact = coherence_loss(student.double(), target.double(), reading, mask)
    torch.testing.assert_close(exact, direct(student, target, reading, mask), rtol=1e-12, atol=0)


@pytest.mark.parametrize("reading", READINGS)
def test_cancellation_leaves_small_losses_right(reading):
    """Late in training the terms nearly cancel; float32 must still see the difference."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(1, 1024, 32, generator=generator)
    target[..., 0] += 4  # strongly correlated tokens: large terms
    student = target + 0.02 * torch.randn(target.shape, generator=generator)
    given = coherence_loss(student, target, reading)
    torch.testing.assert_close(given.double(), direct(student, target, reading), rtol=2e-2, atol=0)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("tokens", [8, 64])
def test_identical_features_have_zero_loss_and_finite_gradients(reading, tokens):
    features = torch.randn(2, tokens, 16, generator=torch.Generator().manual_seed(0))
    student = features.clone().requires_grad_()
    loss = coherence_loss(student, 3 * features, reading)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("reading", READINGS)
def test_both_forms_have_the_same_gradient(reading):
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(2, 50, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 50, 20, generator=generator, dtype=torch.float64)
    (algebraic,) = torch.autograd.grad(coherence_loss(student, target, reading), student)
    (defined,) = torch.autograd.grad(direct(student, target, reading), student)
    torch.testing.assert_close(algebraic, defined, rtol=1e-9, atol=1e-15)
    assert algebraic.abs().max() > 0


def test_coherence_ignores_feature_length_and_channel_order():
    student, target = torch.randn(1, 30, 8), torch.randn(1, 30, 8)
    expected = coherence_loss(student, target)
    torch.testing.assert_close(coherence_loss(5 * student, 0.1 * target[..., torch.randperm(8)]), expected)


def test_correlations_of_the_target_equal_declips(recordings):
    recorded = recordings("pooling")
    vfm = torch.from_numpy(recorded["vfm"]).flatten(2).mT  # (B, N, C)
    y = F.normalize(vfm, dim=-1)
    correlations = (y @ y.mT)[:, :64, :64]
    torch.testing.assert_close(correlations, torch.from_numpy(recorded["teacher_context"]), atol=3e-6, rtol=0)


@pytest.mark.parametrize(
    ("original", "pooled_map"), [("clipself", PooledMap.NORMALIZED), ("declip", PooledMap.RAW)], ids=str
)
def test_pooled_regions_equal_the_originals(recordings, original, pooled_map):
    recorded = recordings("pooling")
    dense = torch.from_numpy(recorded[f"{original}_dense"])
    boxes = [torch.from_numpy(recorded["boxes0"]), torch.from_numpy(recorded["boxes1"])]
    expected = torch.from_numpy(recorded[f"{original}_pooled"])
    atol = 3e-6 if original == "clipself" else 6e-5
    torch.testing.assert_close(pool_regions(dense, boxes, pooled_map), expected, atol=atol, rtol=0)
    other = PooledMap.RAW if pooled_map is PooledMap.NORMALIZED else PooledMap.NORMALIZED
    if original == "declip":  # CLIPSelf's recorded map is a unit map already
        assert not torch.allclose(pool_regions(dense, boxes, other), expected, atol=1e-2)


def test_pooling_scales_height_and_width_apart():
    dense = torch.zeros(1, 1, 2, 8)
    dense[0, 0, 1, 6:] = 1.0
    cell = pool_regions(dense, [torch.tensor([[0.75, 0.5, 1.0, 1.0]])], PooledMap.RAW)
    other = pool_regions(dense, [torch.tensor([[0.0, 0.0, 0.5, 0.5]])], PooledMap.RAW)
    assert cell.item() > 0.7 and other.item() == 0


def test_semantics_is_one_minus_cosine():
    targets = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    regions = torch.tensor([[2.0, 0.0], [0.0, -1.0], [0.0, 1.0]], requires_grad=True)
    loss = semantics_loss(regions, targets)
    assert loss.item() == pytest.approx((0 + 2 + 1) / 3)
    assert semantics_loss(regions, targets, 6.0).item() == pytest.approx(0.5)
    loss.backward()
    assert regions.grad[2].abs().sum() > 0
