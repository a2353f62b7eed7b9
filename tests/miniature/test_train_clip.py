import json
import math

import pytest
import torch
from safetensors.torch import load_file

from denserc.encoders.miniature import create_miniature
from denserc.miniature.train_clip import Recipe, ScenePool, learning_rate, train_clip, word_contrast
from denserc.miniature.world import COLOURS, SHAPES, TEXTURES, Thing

TINY = Recipe(steps=3, batch=6, warmup=1, pool=8, fresh=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("clip")
    return out, train_clip(out, TINY, evaluate_every=10, evaluation_scenes=4, log_every=1)


def test_three_steps_give_finite_losses_and_loadable_weights(trained):
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
    images, captions, subjects = first.batch(5)
    again, *same = second.batch(5)
    assert torch.equal(images, again) and [captions, subjects] == same
    assert first.words() == second.words()
    assert images.shape == (5, 3, 64, 64)


def test_learning_rate_warms_up_and_ends_near_zero():
    recipe = Recipe(steps=100, warmup=10)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == 1.0 and rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_word_contrast_is_small_for_the_right_words_of_a_subject():
    basis = torch.eye(20)
    words = basis[:4], basis[4:12], basis[12:20]
    thing = Thing(TEXTURES[1], COLOURS[2], SHAPES[3])
    right = torch.nn.functional.normalize(basis[1] + basis[4 + 2] + basis[12 + 3], dim=0)
    wrong = torch.nn.functional.normalize(basis[0] + basis[4 + 3] + basis[12 + 2], dim=0)
    scale = torch.tensor(30.0)
    good = word_contrast(right[None], words, [thing], scale)
    assert good < 1e-4 < 10 < word_contrast(wrong[None], words, [thing], scale)
    assert word_contrast(torch.stack([right, wrong]), words, [thing, None], scale) == good
    assert word_contrast(right[None], words, [None], scale) == 0


def test_the_pool_goes_from_lone_things_to_full_scenes():
    pool = ScenePool(TINY)
    assert all(len(view.scene.things) <= 1 for view in pool._views)
    pool.ease = 0.0
    pool.refresh(TINY.pool)
    assert max(len(view.scene.things) for view in pool._views) > 1
