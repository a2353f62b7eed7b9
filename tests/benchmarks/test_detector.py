"""The reference detector has the same detections, losses and gradients; both benchmarks time each part."""

import json

import pytest
import torch
from detectron2.structures import Boxes, Instances

from benchmarks import detector, heads_training
from benchmarks.detector import difference
from benchmarks.drawn_detector import QUICK, configuration, drawn_detector, drawn_inputs
from benchmarks.reference import Attention
from benchmarks.reference_detector import SPLIT, ReferenceDetector, suppressed
from denserc.detection.modeling.postprocess import grouped_nms
from tests.paths import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn():
    """make(construction) -> a drawn miniature detector."""

    def make(construction="denserc"):
        cfg = configuration(str(ROOT / QUICK), CPU)
        cfg.MODEL.CONSTRUCTION.NAME = construction
        return drawn_detector(cfg)

    return make


def found(scores, labels, boxes):
    result = Instances((64, 64), pred_boxes=Boxes(torch.tensor(boxes)), scores=torch.tensor(scores))
    result.pred_classes = torch.tensor(labels)
    return result


@pytest.mark.parametrize("attention", Attention)
@pytest.mark.parametrize("construction", ["denserc", "clipself"])
@torch.no_grad()
def test_the_reference_finds_our_detections(drawn, construction, attention):
    model = drawn(construction)
    inputs = drawn_inputs(2, 128, seed=0)
    ours, theirs = model(inputs), ReferenceDetector(model, attention).eval()(inputs)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one["instances"]) > 20 and one["instances"].pred_classes.unique().numel() > 3
        apart = difference(one["instances"], other["instances"])
        assert apart["score"] < 1e-4 and apart["box"] < 2e-3


def test_detections_that_differ_are_told():
    ours = found([0.9, 0.5], [1, 2], [[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 8.0, 9.0]])
    assert difference(ours, ours) == {"score": 0.0, "box": 0.0}
    for other in (
        found([0.9, 0.5], [1, 3], [[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 8.0, 9.0]]),
        found([0.9, 0.5], [1, 2], [[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 8.0, 9.01]]),
        found([0.9, 0.501], [1, 2], [[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 8.0, 9.0]]),
        found([0.9], [1], [[0.0, 0.0, 9.0, 9.0]]),
    ):
        with pytest.raises(AssertionError, match="detections"):
            difference(ours, other)


@pytest.mark.parametrize("count", [SPLIT // 2, SPLIT + 500])
def test_both_ways_of_suppression_keep_the_same(count):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=generator) * 60], dim=1)
    scores, groups = torch.rand(count, generator=generator), torch.randint(0, 7, (count,), generator=generator)
    given = suppressed(boxes, scores, groups, iou=0.4, limit=300)
    assert len(given) == 300
    assert torch.equal(given, grouped_nms(boxes, scores, groups, iou=0.4, limit=300))


def test_a_difference_of_gradients_is_told():
    ours = {"loss": torch.tensor(1.0), "weight": torch.ones(3)}
    assert heads_training.difference(ours, ours) == 0
    with pytest.raises(AssertionError, match="differ by"):
        heads_training.difference(ours, {**ours, "weight": torch.tensor([1.0, 1.0, 1.1])})


def test_both_scripts_run_and_agree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    report = detector.main(["--quick", "--device", "cpu", "--repeats", "1"])
    rows = report["detectors"][0]["rows"]
    assert [row["way"] for row in rows] == ["ours", "fused", "explicit"]
    for row in rows:
        assert all(value > 0 for value in row["parts"].values())
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"])
        assert row["largest_difference"]["score"] < 1e-4
    report = heads_training.main(["--quick", "--device", "cpu", "--repeats", "1"])
    rows = {row["way"]: row for row in report["detectors"][0]["rows"]}
    assert set(rows) == {"ours", "cached", "fused", "explicit"}
    assert rows["cached"]["largest_difference"] == 0  # bitwise identical
    assert all(row["largest_difference"] < 0.02 for row in rows.values())
    assert json.loads((tmp_path / "output/benchmarks/heads_training.json").read_text()) == report
