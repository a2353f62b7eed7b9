"""Optimizer, learning rate and EMA of the detector."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from denserc.config import get_denserc_config
from denserc.engine.solver import ExportedWeights, TrainedAverage, build_optimizer, build_trained_average
from denserc.structures import CheckpointError, ConfigurationError


def test_the_optimizer_is_adamw_over_what_learns():
    cfg = get_denserc_config()
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.BASE_LR = 0.1, 0.01
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    ours.bias.requires_grad_(False)
    theirs.bias.requires_grad_(False)
    optimizers = [build_optimizer(cfg, ours), torch.optim.AdamW([theirs.weight], lr=0.01, weight_decay=0.1)]
    assert [len(group["params"]) for group in optimizers[0].param_groups] == [1]
    for module, optimizer in zip((ours, theirs), optimizers, strict=True):
        module(torch.ones(1, 3) * 100).pow(2).sum().backward()
        optimizer.step()
    assert optimizers[0].param_groups[0]["fused"]
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("rule", "rate"), [("none", 0.01), ("linear", 0.0025), ("sqrt", 0.005)])
def test_the_rate_follows_the_batch_by_the_named_rule(rule, rate):
    """MMDetection F-ViT's rate is meant for 64 images per step; here there are 16."""
    cfg = get_denserc_config()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.LR_SCALING = 0.01, 16, rule
    assert build_optimizer(cfg, nn.Linear(1, 1)).param_groups[0]["lr"] == pytest.approx(rate)
    cfg.SOLVER.REFERENCE_BATCH = 0
    with pytest.raises(ConfigurationError, match="SOLVER.REFERENCE_BATCH"):
        build_optimizer(cfg, nn.Linear(1, 1))


@pytest.fixture()
def normed():
    """A frozen layer, and a trained one with running statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    return model


def shift(model, by):
    with torch.no_grad():
        for one in (model[1].weight, model[1].bias, model[1].running_mean):
            one.add_(by)


def test_the_average_follows_what_training_changes(normed):
    average = TrainedAverage(normed, decay=0.75, exported=ExportedWeights.AVERAGE)
    assert sorted(average.state_dict()["trained"]) == ["1/bias", "1/running_mean", "1/running_var", "1/weight"]
    start = {name: value.clone() for name, value in normed.state_dict().items()}
    average.update()  # the first copies
    shift(normed, 4.0)
    average.update()
    with average.exported_weights():
        torch.testing.assert_close(normed[1].weight, start["1.weight"] + 1.0)
        torch.testing.assert_close(normed[1].running_mean, start["1.running_mean"] + 1.0)
        torch.testing.assert_close(normed[1].running_var, start["1.running_var"])
    assert torch.equal(normed[1].weight, start["1.weight"] + 4.0)
    assert torch.equal(normed[0].weight, start["0.weight"])


def test_both_sides_come_back_from_a_state(normed):
    average = TrainedAverage(normed, decay=0.5, exported=ExportedWeights.AVERAGE)
    average.update()
    shift(normed, 2.0)
    average.update()
    state, trained = deepcopy(average.state_dict()), normed[1].bias.clone()
    shift(normed, 9.0)
    average.update()
    average.load_state_dict(state)
    assert torch.equal(normed[1].bias, trained)
    with average.exported_weights():
        torch.testing.assert_close(normed[1].bias, trained - 1.0)
    with pytest.raises(CheckpointError, match="another model"):
        TrainedAverage(nn.Linear(2, 2), decay=0.5, exported=ExportedWeights.AVERAGE).load_state_dict(state)


def test_exporting_trained_weights_and_no_average_without_decay(normed):
    average = TrainedAverage(normed, decay=0.5, exported=ExportedWeights.TRAINED)
    average.update()
    shift(normed, 2.0)
    before = normed[1].bias.clone()
    with average.exported_weights():
        assert torch.equal(normed[1].bias, before)
    cfg = get_denserc_config()
    assert build_trained_average(cfg, normed) is None
    cfg.SOLVER.EMA.DECAY = 1.0
    with pytest.raises(ConfigurationError, match="SOLVER.EMA.DECAY"):
        build_trained_average(cfg, normed)
