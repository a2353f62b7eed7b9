"""Order of the examples: every one once per epoch, grouped as LLaVA groups them."""

import random

import pytest
import torch

from denserc.llava.conversations import Conversation
from denserc.llava.sampling import ConversationSampler, grouped_by_modality, modality_lengths


def lengths(pictures: int, texts: int) -> list[int]:
    draw = random.Random(0)
    found = [draw.randint(1, 90) for _ in range(pictures)] + [-draw.randint(1, 90) for _ in range(texts)]
    draw.shuffle(found)
    return found


@pytest.mark.parametrize(("pictures", "texts"), [(37, 21), (40, 0), (0, 9), (3, 1), (16, 16)])
def test_every_example_comes_once(pictures, texts):
    order = grouped_by_modality(lengths(pictures, texts), 4, 2, torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(pictures + texts))


def test_steps_have_one_modality_and_passes_equal_lengths():
    sizes = lengths(64, 48)
    order = grouped_by_modality(sizes, 4, 2, torch.Generator().manual_seed(0))
    steps = [order[i : i + 8] for i in range(0, len(order), 8)]
    kinds = [{sizes[one] > 0 for one in step} for step in steps]
    assert all(len(kind) == 1 for kind in kinds)
    assert len({kind.pop() for kind in kinds[:-2]}) == 2
    for step in steps:
        first, second = (sum(abs(sizes[one]) for one in step[i : i + 4]) for i in (0, 4))
        assert abs(first - second) <= max(abs(sizes[one]) for one in step)


def test_shares_follow_the_greedy_rule():
    """Worked by hand: 9, 7, 5, 3 from long to short; each goes to the shortest share that has room."""
    order = grouped_by_modality([5, 9, 3, 7], 2, 2, torch.Generator().manual_seed(0))
    assert order == [1, 2, 3, 0]


def test_epochs_differ_and_repeat():
    grouped = {"lengths": lengths(30, 10), "batch": 2, "batches": 2}
    for options in ({}, grouped):
        sampler = ConversationSampler(40, seed=3, **options)
        first = list(sampler)
        assert list(sampler) == first and len(sampler) == 40
        sampler.set_epoch(1)
        assert sorted(sampler) == sorted(first) and list(sampler) != first
        assert list(ConversationSampler(40, seed=4, **options)) != first


def test_lengths_are_words_with_the_sign_of_the_modality():
    rounds = (("what is it", "red"),)
    assert modality_lengths([Conversation("a", "a.png", rounds), Conversation("b", None, rounds)]) == [4, -4]
