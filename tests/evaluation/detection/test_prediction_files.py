"""The fast reader returns the same as the general one, or passes the file on to it."""

import gzip
import json

import numpy as np
import pytest

from denserc.data.proposals import stream_results
from denserc.evaluation.detection import prediction_files as uniform_results
from denserc.evaluation.detection.prediction_files import read_predictions, write_predictions
from denserc.evaluation.scoring.tables import Detections
from denserc.structures import DataError
from tests.evaluation import generated

ENTRY = {"image_id": 7, "category_id": 3, "bbox": [0.1, 2, 1e-7, 4.25], "score": 0.30000001192092896}


def same(one: Detections, other: Detections) -> bool:
    return list(one.results()) == list(other.results())


@pytest.mark.parametrize("chunk", [64, 1000, 1 << 23])
@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_what_an_evaluation_wrote_is_read_to_the_last_bit(tmp_path, monkeypatch, chunk, suffix):
    monkeypatch.setattr(uniform_results, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    count = 300
    numbers = rng.normal(0, 10.0 ** rng.integers(-9, 9, (count, 5)), (count, 5)).astype(np.float32).astype(float)
    ids = rng.integers(0, 2**40, (2, count))
    written = Detections(*ids, numbers[:, :4], numbers[:, 4])
    path = tmp_path / f"results.{suffix}"
    write_predictions(path, written)
    fast = uniform_results.read_uniform(path)
    assert same(fast, written) and same(Detections.from_results(stream_results(path)), written)
    assert fast.image_ids.dtype == np.int64


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ENTRY] * 3),
        json.dumps([ENTRY] * 3, indent=2),
        json.dumps([ENTRY] * 3, separators=(",", ":")),
        json.dumps([{"id": 4, **dict(reversed(ENTRY.items())), "area": 5e3}] * 2) + "\n",
        json.dumps([{**ENTRY, "score": -3, "image_id": 5.0}]),
    ],
)
def test_other_spacing_order_and_numbers_are_uniform_too(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    table = uniform_results.read_uniform(path)
    assert table is not None and same(table, Detections.from_results(json.loads(text)))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        json.dumps([ENTRY, dict(reversed(ENTRY.items()))]),
        json.dumps([ENTRY, {**ENTRY, "note": 1}]),
        json.dumps([{**ENTRY, "image_id": "0007"}, ENTRY]),
        json.dumps([{**ENTRY, "segmentation": generated.rle(generated.box_mask([1, 2, 3, 4]))}]),
    ],
)
def test_the_general_reader_takes_what_is_not_uniform(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    assert uniform_results.read_uniform(path) is None
    assert same(read_predictions(path), Detections.from_results(json.loads(text)))


@pytest.mark.parametrize(
    "old, new",
    [
        ("0.1", "0.1 5"),
        ("0.1", "0.1.2"),
        ("0.1", "NaN?"),
        ("4.25", "4.25, 6"),
        ("7", '"seven"'),
        ("]", ""),
        ("}]", "},"),
    ],
)
def test_damage_is_an_error_not_a_number(tmp_path, old, new):
    path = tmp_path / "results.json"
    text = json.dumps([ENTRY, ENTRY])
    at = text.rindex(old)
    path.write_text(text[:at] + new + text[at + len(old) :])
    with pytest.raises(DataError, match="results.json"):
        read_predictions(path)


def test_a_packed_file_that_ends_early_is_said(tmp_path):
    path = tmp_path / "results.json.gz"
    path.write_bytes(gzip.compress(json.dumps([ENTRY] * 50).encode())[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path)


@pytest.mark.parametrize(
    "field, text",
    [("score", "1e999"), ("score", "-1e999"), ("score", "NaN"), ("score", "Infinity"), ("score", "true"),
     ("bbox", "[1, 2, 3, 1e999]"), ("bbox", "[1e10, 2, 3, 4]"), ("bbox", "[1, 2, 3, null]"), ("image_id", "1.5"),
     ("image_id", "9007199254740992"), ("image_id", "1e999"), ("category_id", "null"), ("category_id", "1e300")],
)  # fmt: skip
def test_the_fast_reader_has_the_rules_of_the_general_one(tmp_path, field, text):
    whole = json.dumps([ENTRY] * 5)
    start = whole.rindex(f'"{field}": ') + len(field) + 4
    end = whole.index("]" if field == "bbox" else "," if field != "score" else "}", start) + (field == "bbox")
    (tmp_path / "results.json").write_text(whole[:start] + text + whole[end:])
    assert uniform_results.read_uniform(tmp_path / "results.json") is None
    with pytest.raises(DataError, match=f"results.json: entry 4 is no detection: its '{field}' is "):
        read_predictions(tmp_path / "results.json")


@pytest.mark.parametrize("form", ["gzip", "mark", "gzip and mark"])
def test_the_form_of_a_file_is_told_by_its_content(tmp_path, form):
    text = ("\ufeff" if "mark" in form else "") + json.dumps([ENTRY] * 5)
    (tmp_path / "results.json").write_bytes(gzip.compress(text.encode()) if "gzip" in form else text.encode())
    assert same(read_predictions(tmp_path / "results.json"), Detections.from_results([ENTRY] * 5))
