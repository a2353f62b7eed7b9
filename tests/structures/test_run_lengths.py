"""Run lengths are judged as pycocotools would read them, and nothing that would harm it passes."""

import math

import numpy as np
import pytest
from pycocotools import mask as mask_api

from denserc.structures.run_lengths import run_lengths_fault, run_lengths_faults


def encoded(mask: np.ndarray, text: bool = True) -> dict:
    code = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode() if text else code["counts"]}


@pytest.fixture(scope="module")
def masks():
    """Masks of all kinds: noise, full, empty, one pixel wide, large."""
    rng = np.random.default_rng(0)
    found = [encoded(rng.random(rng.integers(1, 60, 2)) < rng.random(), text=i % 2 == 0) for i in range(200)]
    found += [encoded(np.full((h, w), value)) for h, w in ((1, 1), (1, 90), (90, 1), (2000, 3000)) for value in (0, 1)]
    return found


def test_masks_of_pycocotools_are_valid(masks):
    assert run_lengths_faults(masks) == [""] * len(masks)
    assert run_lengths_faults(masks, [tuple(mask["size"]) for mask in masks]) == [""] * len(masks)
    assert [run_lengths_fault(mask) for mask in masks] == [""] * len(masks)


def test_uncompressed_runs_are_those_of_the_same_mask():
    runs = {"size": [24, 32], "counts": [30, 20, 718]}
    assert run_lengths_fault(runs) == "" and run_lengths_fault(runs, (24, 32)) == ""
    assert "(h, w)" in run_lengths_fault(runs, (32, 24))


def test_whatever_passes_covers_its_image_when_decoded(masks):
    rng, passed = np.random.default_rng(1), 0
    for mask in masks[:120]:
        counts = mask["counts"] if isinstance(mask["counts"], str) else mask["counts"].decode()
        for _ in range(12):
            letters = list(counts)
            place = rng.integers(0, len(letters))
            letters[place : place + rng.integers(0, 3)] = [
                chr(rng.integers(48, 112)) for _ in range(rng.integers(0, 3))
            ]
            damaged = {"size": mask["size"], "counts": "".join(letters)}
            if run_lengths_fault(damaged):
                continue
            passed += 1
            assert mask_api.decode(damaged).shape == tuple(mask["size"])
            again = mask_api.merge([damaged])  # writes the same pixels anew
            assert np.array_equal(mask_api.decode(again), mask_api.decode(damaged))
    assert passed > 10


def test_masks_that_are_cut_short_are_told_from_whole_ones(masks):
    cut = [{**mask, "counts": mask["counts"][:-1]} if i % 3 == 0 else mask for i, mask in enumerate(masks)]
    faults = run_lengths_faults(cut)
    assert [bool(fault) for fault in faults] == [i % 3 == 0 for i in range(len(cut))]
    assert faults == [run_lengths_fault(mask) for mask in cut]


COUNTS = [None, 5, {}, "", b"", "é", "\ud800", "~", " ", "o", "oooooooooooo0", "0" * 9, [], [768.5], ["768"], [None]]
COUNTS += [[-1, 769], [767], [769], [True, 767], [math.nan], [math.inf], [10**400], [[768]], [2**64]]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_counts_of_other_kinds_are_refused(counts):
    assert run_lengths_fault({"size": [24, 32], "counts": counts})


SIZES = [None, 24, "24", [], [24], [24, 32, 3], [24, None], ["24", "32"], [0, 32], [-24, -32], [24.5, 32], [True, 768]]
SIZES += [[math.nan, 32], [math.inf, 32], [10**400, 1], [[24], [32]], [2**20, 2**20], {"h": 24, "w": 32}]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_of_other_kinds_are_refused(size):
    assert run_lengths_fault({"size": size, "counts": [768]})


@pytest.mark.parametrize("mask", [{}, {"size": [24, 32]}, {"counts": [768]}])
def test_both_fields_are_needed(mask):
    assert "need 'size'" in run_lengths_fault(mask)


def test_no_masks_are_no_faults():
    assert run_lengths_faults([]) == []
