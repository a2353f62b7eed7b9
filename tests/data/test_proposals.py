"""Proposal files: the selection of proposals, reading in little memory, and errors for broken files."""

import gzip
import json

import numpy as np
import pytest

from denserc.data import proposals as module
from denserc.data import result_files
from denserc.data.proposals import ProposalLimits, id_key, read_proposals, result_lines, stream_results, write_results
from denserc.structures import ConfigurationError, DataError


def entry(image_id, box, score, **more) -> dict:
    return {"image_id": image_id, "bbox": list(box), "score": score, "category_id": 1, **more}


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture()
def entries():
    """300 boxes of 7 images, not in order of images or scores, with ties."""
    rng = np.random.default_rng(0)
    return [
        entry(int(i), [float(v) for v in (*rng.integers(0, 50, 2), *rng.integers(1, 60, 2))], float(s) / 20)
        for i, s in zip(rng.integers(0, 7, 300), rng.integers(0, 20, 300), strict=True)
    ]


@pytest.mark.parametrize("rows", [7, 1 << 20])  # selected in many parts, and at once
@pytest.mark.parametrize("top_k", [0, 1, 12])
def test_the_best_of_each_image_are_kept_in_order(entries, tmp_path, monkeypatch, rows, top_k):
    monkeypatch.setattr(module, "_ROWS", rows)
    table = read_proposals(write(tmp_path / "p.json", entries), ProposalLimits(min_side=10, max_side=40, top_k=top_k))
    for image in range(7):
        mine = [e for e in entries if e["image_id"] == image and 100 <= e["bbox"][2] * e["bbox"][3] <= 1600]
        mine = sorted(mine, key=lambda e: -e["score"])[: top_k or None]
        first, end = table.spans[str(image)]
        assert table.scores[first:end].tolist() == [np.float32(e["score"]) for e in mine]
        expected = [[x, y, x + w, y + h] for x, y, w, h in (e["bbox"] for e in mine)]
        assert table.boxes[first:end].tolist() == expected
    assert table.boxes.dtype == table.scores.dtype == np.float32
    assert len(table.boxes) == max(end for _, end in table.spans.values())


def test_published_limits_are_inclusive_areas(tmp_path):
    boxes = {"8": (0, 0, 8, 8), "below": (0, 0, 7, 9), "1024": (0, 0, 512, 2048), "above": (0, 0, 1024, 1025)}
    path = write(tmp_path / "p.json", [entry(name, box, 0.5) for name, box in boxes.items()])
    assert set(read_proposals(path).spans) == {"8", "1024"}


def test_useless_boxes_are_left_out(tmp_path):
    boxes = [(0, 0, 20, 20), (0, 0, -20, -20), (0, 0, 0, 20), (float("nan"), 0, 20, 20), (0, 0, float("inf"), 20)]
    table = read_proposals(write(tmp_path / "p.json", [entry(1, box, 0.5) for box in boxes]))
    assert table.boxes.tolist() == [[0, 0, 20, 20]]
    with pytest.raises(DataError, match="no proposal between"):
        read_proposals(write(tmp_path / "q.json", [entry(1, (0, 0, 2, 2), 0.5)]))


@pytest.mark.parametrize("same", [(139, 139.0, "139", "000000000139"), ("a.jpg",), ("2007_000032",)])
def test_ids_have_one_spelling(same):
    assert len({id_key(i) for i in same}) == 1
    assert id_key(139.5) != id_key(139)


@pytest.mark.parametrize("chunk", [64, 1 << 22])
def test_streaming_reads_what_json_reads(entries, tmp_path, monkeypatch, chunk):
    entries = [*entries[:20], entry(5, (0, 0, 9, 9), 1.0, segmentation={"size": [3, 3], "counts": "a}],[{"})]
    monkeypatch.setattr(result_files, "_CHUNK", chunk * 4)
    for indent in (None, 1):
        (tmp_path / "p.json").write_text(json.dumps(entries, indent=indent))
        assert list(stream_results(tmp_path / "p.json")) == entries
    with gzip.open(tmp_path / "p.json.gz", "wt") as file:
        json.dump(entries, file)
    assert list(stream_results(tmp_path / "p.json.gz")) == entries


def test_broken_files_say_what_is_wrong(tmp_path):
    good = json.dumps([entry(1, (0, 0, 20, 20), 0.5)] * 3)
    for name, text, message in (
        ("cut.json", good[:-20], "cut short"),
        ("empty.json", "", "are empty"),
        ("coco.json", '{"images": [], "annotations": []}', "not a data set"),
        ("keys.json", '[{"image_id": 1, "box": [0, 0, 1, 1]}]', "entry 0 is no proposal"),
        ("numbers.json", '[{"image_id": 1, "bbox": [0, 0, 1, null], "score": 1}]', "entry 0 is no proposal"),
        ("list.json", "[1, 2]", "entry 0 is no proposal"),
        ("null.json", '[{"image_id": null, "bbox": [0, 0, 20, 20], "score": 1}]', "entry 0 is no proposal"),
        ("none.json", "[]", "no proposal between"),
        ("text.json", "[" + "x" * (1 << 23), "not JSON"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            read_proposals(tmp_path / name)
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(good.encode())[:-12])
    for name in ("p.json.gz", "absent.json"):
        with pytest.raises(DataError, match=name):
            read_proposals(tmp_path / name)


def test_limits_that_leave_nothing_are_refused():
    for wrong in ({"min_side": 9, "max_side": 8}, {"top_k": -1}):
        with pytest.raises(ConfigurationError, match="min_side"):
            ProposalLimits(**wrong)


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_written_files_are_read_back(tmp_path, name):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (5, 2))
    boxes, scores = np.hstack([corner, corner + rng.uniform(10, 50, (5, 2))]), np.sort(rng.random(5))[::-1]
    lines = [line for image in (3, 8) for line in result_lines(image, boxes, scores)]
    assert write_results(tmp_path / "new" / name, iter(lines)) == 10
    table = read_proposals(tmp_path / "new" / name)
    assert set(table.spans) == {"3", "8"}
    np.testing.assert_allclose(table.boxes[:5], boxes, atol=0.011)
    np.testing.assert_allclose(table.scores[5:], scores, rtol=1e-5)
    first = next(stream_results(tmp_path / "new" / name))
    assert first.keys() == {"image_id", "bbox", "score", "category_id"} and first["category_id"] == 1


def test_a_writing_that_fails_leaves_the_old_file(tmp_path):
    write_results(tmp_path / "p.json", [])
    assert json.loads((tmp_path / "p.json").read_text()) == []

    def lines():
        yield "{}"
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_results(tmp_path / "p.json", lines())
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]
    assert json.loads((tmp_path / "p.json").read_text()) == []
    with pytest.raises(DataError, match="not finite"):
        list(result_lines(1, np.array([[0, 0, np.nan, 1]]), np.array([1.0])))
