"""Trained parameters and the schedule."""

from copy import deepcopy

import pytest
import torch

from denserc.construction import Construction, DenseEncoder
from denserc.distillation.optim import Trainable, build_optimizer, learning_rate, set_trainable
from denserc.engine import RateScaling, scaled_rate
from denserc.structures import ConfigurationError


@pytest.fixture()
def student(recorded_tower) -> DenseEncoder:
    return DenseEncoder(deepcopy(recorded_tower), Construction())


def test_matrices_decay_and_vectors_do_not(student):
    optimizer = build_optimizer(student, lr=1.0, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in student.named_parameters():
        vector = name.endswith("bias") or parameter.ndim < 2
        assert decay[id(parameter)] == (0.0 if vector else 0.1), name


def test_the_gates_may_learn_faster_than_the_tower(student):
    settings = {"lr": 1.0, "weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-6}
    optimizer = build_optimizer(student, gate_rate=10.0, **settings)
    factor = {id(p): group["rate_factor"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in student.named_parameters():
        assert factor[id(parameter)] == (10.0 if name.startswith("gates.") else 1.0), name
    with pytest.raises(ConfigurationError, match="above 0; got 0"):
        build_optimizer(student, gate_rate=0, **settings)


def test_blocks_alone_leave_embeddings_and_head(student):
    set_trainable(student, Trainable.BLOCKS)
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert frozen and not any(".blocks." in name or name.startswith("gates") for name in frozen)
    assert all(p.requires_grad for name, p in student.named_parameters() if ".blocks." in name)
    assert all(p.requires_grad for p in student.gates.parameters())
    set_trainable(student, Trainable.TOWER)
    assert all(p.requires_grad for p in student.parameters())


def test_a_tower_without_blocks_is_refused(student):
    student.tower = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigurationError, match="Use 'tower'"):
        set_trainable(student, Trainable.BLOCKS)


def test_schedule_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, base=2.0, warmup=4, total=20) for step in range(20)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert all(a > b for a, b in zip(rates[4:], rates[5:], strict=False))
    assert rates[12] == pytest.approx(1.0)
    assert learning_rate(20, base=2.0, warmup=4, total=20) == 0.0
    assert learning_rate(0, base=2.0, warmup=0, total=1) == 2.0


def test_rate_follows_the_batch_by_the_named_rule():
    rates = [scaled_rate(1e-5, batch=64, reference=16, rule=rule) for rule in RateScaling]
    assert rates == [1e-5, pytest.approx(4e-5), pytest.approx(2e-5)]
    # The paper's setting is the paper's rate under every rule.
    assert all(scaled_rate(1e-5, batch=16, reference=16, rule=rule) == 1e-5 for rule in RateScaling)
    with pytest.raises(ConfigurationError, match="REFERENCE_BATCH"):
        scaled_rate(1e-5, batch=16, reference=0, rule=RateScaling.LINEAR, key="SOLVER.REFERENCE_BATCH")


def test_the_fused_update_is_the_plain_one(student):
    options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-6}
    other = deepcopy(student)
    fused, plain = build_optimizer(student, **options), build_optimizer(other, **options)
    assert all(group["fused"] for group in fused.param_groups)
    for group in plain.param_groups:
        group["fused"] = False
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for one, two in zip(student.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            two.grad = one.grad.clone()
        fused.step()
        plain.step()
    for one, two in zip(student.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)
