"""Masks and numbers of results are refused before pycocotools or NumPy get them, and harmless faults are repaired."""

import numpy as np
import pytest
from pycocotools import mask as mask_api

from denserc.evaluation.scoring.result_entries import columns_of, compressed_mask
from denserc.structures import DataError
from denserc.structures.run_lengths import run_lengths_faults


def drawn(rng, h, w) -> np.ndarray:
    mask = np.zeros((h, w), np.uint8)
    for _ in range(rng.integers(0, 5)):
        y, x = rng.integers(0, h), rng.integers(0, w)
        mask[y : y + rng.integers(1, h + 1), x : x + rng.integers(1, w + 1)] ^= 1
    return mask


def encoded(mask: np.ndarray) -> dict:
    code = mask_api.encode(np.asfortranarray(mask))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def runs_of(counts: str) -> list[int] | None:
    """The run lengths, character by character as in pycocotools' rleFrString; None where that reads on."""
    runs, at = [], 0
    while at < len(counts):
        value, digit, more = 0, 0, True
        while more:
            if at >= len(counts) or not 48 <= ord(counts[at]) <= 111:
                return None
            bits = ord(counts[at]) - 48
            value |= (bits & 31) << 5 * digit
            more, at, digit = bool(bits & 32), at + 1, digit + 1
            if not more and bits & 16:
                value |= -1 << 5 * digit
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def test_damaged_run_lengths_are_found_as_by_a_slow_reader():
    rng = np.random.default_rng(1)
    masks = []
    for _ in range(4000):
        mask = encoded(drawn(rng, *rng.integers(1, 60, 2)))
        text = list(mask["counts"])
        for _ in range(rng.integers(0, 3)):
            at = rng.integers(0, len(text) + 1)
            letter = chr(rng.integers(40, 125))
            text[at : at + 1] = [[], [letter], [letter, letter], text[at : at + 1]][rng.integers(0, 4)]
        if rng.random() < 0.1:
            text = text[: rng.integers(0, len(text) + 1)]
        masks.append({**mask, "counts": "".join(text)})
    sound = 0
    for mask, fault in zip(masks, run_lengths_faults(masks), strict=True):
        runs, area = runs_of(mask["counts"]), mask["size"][0] * mask["size"][1]
        good = runs is not None and all(0 <= run <= area for run in runs) and sum(runs) == area
        assert (not fault) == good, (mask, fault, runs)
        sound += good
    assert 500 < sound < 3500


def test_uncompressed_run_lengths_are_compressed():
    mask = drawn(np.random.default_rng(3), 20, 30)
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.r_[0, flat])), [len(flat)]
    counts = np.diff(np.r_[0, np.concatenate(edges)]).tolist()
    found = compressed_mask({"size": [20, 30.0], "counts": counts})
    assert found == encoded(mask)


@pytest.mark.parametrize("nothing", [None, []])
def test_an_absent_mask_is_none(nothing):
    assert compressed_mask(nothing) is None


SQUARE = {"size": [4, 4], "counts": "05;"}  # 0 zeros, 5 ones, 11 zeros
GOOD = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4.5], "score": 0.5, "segmentation": SQUARE}
HUGE = 10**400


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 2, 3, 4, 5, 6]], [1, 2], "05;", True, 5, {}, {"size": [4, 4]}, {"counts": "05;"},
        {"size": ["4", 4], "counts": "05;"}, {"size": [0, 4], "counts": "05;"}, {"size": [False, 4], "counts": "05;"},
        {"size": [-4, -4], "counts": "05;"}, {"size": [4.5, 4], "counts": "05;"}, {"size": [4], "counts": "05;"},
        {"size": [4, 4, 1], "counts": "05;"}, {"size": None, "counts": "05;"}, {"size": {"h": 4}, "counts": "05;"},
        {"size": [float("nan"), 4], "counts": "05;"}, {"size": [float("inf"), 4], "counts": "05;"},
        {"size": [HUGE, 4], "counts": "05;"}, {"size": [2**20, 2**20], "counts": "05;"},
        {"size": [4, 5], "counts": "05;"}, {"size": [4, 4], "counts": ""}, {"size": [4, 4], "counts": "05Q"},
        {"size": [4, 4], "counts": "05\u00e9"}, {"size": [4, 4], "counts": "05\ud800"},
        {"size": [4, 4], "counts": "05?;"}, {"size": [4, 4], "counts": "0?05;"}, {"size": [4, 4], "counts": "05 ;"},
        {"size": [4, 4], "counts": "0" + "o" * 30 + "5"}, {"size": [4, 4], "counts": "0\x005;"},
        {"size": [4, 4], "counts": 16}, {"size": [4, 4], "counts": None}, {"size": [4, 4], "counts": {}},
        {"size": [4, 4], "counts": [0, 5, 10]}, {"size": [4, 4], "counts": [0, 17, -1]},
        {"size": [4, 4], "counts": [0, True, 15]}, {"size": [4, 4], "counts": [0, 5.5, 10.5]},
        {"size": [4, 4], "counts": [[0], 16]}, {"size": [4, 4], "counts": []}, {"size": [4, 4], "counts": [HUGE]},
    ],
)  # fmt: skip
def test_a_damaged_mask_is_refused_by_its_entry(mask):
    with pytest.raises(DataError, match="entry 12 is no detection.*'segmentation'"):
        columns_of([GOOD, GOOD, {**GOOD, "segmentation": mask}], 10)


@pytest.mark.parametrize("field", ["image_id", "category_id"])
@pytest.mark.parametrize(
    "value",
    [None, True, False, 1.5, float("nan"), float("inf"), 2**53, -(2**53), 2**63, HUGE, "one", "", "1.0", "-1", "\u00bd",
     "9" * 30, "9" * 6000, [1], {"id": 1}, [[1]], np.bool_(True), np.float64("nan")],
)  # fmt: skip
def test_an_id_that_is_no_whole_number_is_refused(field, value):
    with pytest.raises(DataError, match=f"entry 1 is no detection: its '{field}' is "):
        columns_of([GOOD, {**GOOD, field: value}])


@pytest.mark.parametrize(
    "value", [None, True, "0.5", float("nan"), float("inf"), -float("inf"), HUGE, [0.5], {}, np.float32("nan")]
)
def test_a_score_that_is_no_finite_number_is_refused(value):
    with pytest.raises(DataError, match="entry 1 is no detection: its 'score' is "):
        columns_of([GOOD, {**GOOD, "score": value}])


@pytest.mark.parametrize(
    "value",
    [None, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, None], [1, 2, 3, "4"], [1, 2, 3, True], [[1, 2], [3, 4]],
     [1, 2, 3, [4]], "1234", {"x": 1}, 7, [1, 2, float("nan"), 4], [float("inf"), 2, 3, 4], [HUGE, 2, 3, 4],
     [1e10, 0, 1, 1], np.zeros((4, 1)), np.array([1, 2, 3, np.nan])],
    ids=str,
)  # fmt: skip
def test_a_box_that_is_no_four_numbers_is_refused(value):
    with pytest.raises(DataError, match="entry 1 is no detection: its 'bbox' is "):
        columns_of([GOOD, {**GOOD, "bbox": value}])


@pytest.mark.parametrize("entry", [None, 3, "x", [], [GOOD], True, float("nan")])
def test_an_entry_that_is_no_object_is_refused(entry):
    with pytest.raises(DataError, match="entry 1 is no detection"):
        columns_of([GOOD, entry])


@pytest.mark.parametrize("field", ["image_id", "category_id", "score"])
def test_an_absent_field_is_named(field):
    with pytest.raises(DataError, match=f"entry 0 is no detection: it has no '{field}'"):
        columns_of([{key: value for key, value in GOOD.items() if key != field}])


def test_an_entry_without_box_and_mask_is_refused():
    with pytest.raises(DataError, match="neither a 'bbox' nor a 'segmentation'"):
        columns_of([{"image_id": 1, "category_id": 2, "score": 0.5}])


def test_harmless_forms_are_the_same_detection():
    plain = columns_of([GOOD])
    for field, value in [
        ("image_id", 1.0), ("image_id", "0001"), ("category_id", np.int32(2)), ("score", np.float32(0.5)),
        ("bbox", (1, 2, 3, 4.5)), ("bbox", np.array([1, 2, 3, 4.5])), ("note", {"nested": [None]}),
        ("segmentation", {"size": [4.0, 4], "counts": [0, 5, 11]}),
    ]:  # fmt: skip
        found = columns_of([{**GOOD, field: value}])
        for one, other in zip(found[:4], plain[:4], strict=True):
            assert one.dtype == other.dtype and (one == other).all()
        assert found.masks.tolist() == plain.masks.tolist()
        assert found.text_ids == int(isinstance(value, str))


def test_a_box_is_that_of_the_mask_where_there_is_none():
    found = columns_of([{key: value for key, value in GOOD.items() if key != "bbox"}])
    assert found.boxes.tolist() == mask_api.toBbox(SQUARE)[None].tolist()


def test_an_empty_segmentation_is_no_mask():
    assert columns_of([{**GOOD, "segmentation": []}, {**GOOD, "segmentation": None}]).masks is None
