import json
import math

import pytest
import torch
from safetensors.torch import load_file

from denserc.encoders.miniature import create_miniature
from denserc.miniature.train_clip import Recipe, ScenePool, learning_rate, train_clip

TINY = Recipe(steps=3, batch=6, warmup=1, pool=8, fresh=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("clip")
    return out, train_clip(out, TINY, evaluate_every=10, evaluation_scenes=4, log_every=1)


def test_three_steps_leave_finite_losses_metrics_and_loadable_weights(trained):
    out, metrics = trained
    assert [step for step, _ in metrics["loss"]] == [0, 1, 2]
    assert all(math.isfinite(loss) for _, loss in metrics["loss"])
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert set(metrics["zero_shot"][-1]) == {"step", "main", "transfer"}
    model, _ = create_miniature(out / "miniature_clip.safetensors")
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_training_moves_every_tensor(trained):
    before = create_miniature(None, seed=TINY.seed)[0].state_dict()
    after = load_file(trained[0] / "miniature_clip.safetensors")
    still = [k for k in before if torch.equal(before[k].half(), after[k]) and before[k].is_floating_point()]
    assert still == []


def test_the_same_seed_draws_the_same_batches():
    first, second = ScenePool(TINY), ScenePool(TINY)
    for pool in (first, second):
        pool.refresh(3)
    images, captions = first.batch(5)
    again, same = second.batch(5)
    assert torch.equal(images, again) and captions == same
    assert images.shape == (5, 3, 64, 64)


def test_learning_rate_warms_up_and_ends_near_zero():
    recipe = Recipe(steps=100, warmup=10, rate=1.0)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == 1.0 and rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
