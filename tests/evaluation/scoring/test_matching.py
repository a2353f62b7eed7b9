"""Many objects and detections in few groups, where the order of choosing decides; and the table that carries them."""

import json

import numpy as np
import pytest

from denserc.evaluation.scoring.average_precision import Backend, Shape, score_detections
from denserc.evaluation.scoring.tables import Detections, best_of_class, best_of_image
from denserc.structures import DataError
from tests.evaluation import generated


def crowded(seed: int, *, federated: bool = False) -> tuple[dict, list[dict]]:
    """Three classes, boxes on a coarse grid: equal overlaps, equal scores, equal boxes, crowds, full groups."""
    rng = np.random.default_rng(seed)
    truth = generated.ground_truth(seed, images=5, federated=federated)
    truth["annotations"] = []
    for image in range(1, 6):
        for _ in range(25):
            x, y, w, h = (float(v) for v in rng.integers(1, 8, 4) * 8)
            annotation = {"id": len(truth["annotations"]) + 1, "image_id": image, "bbox": [x, y, w, h], "area": w * h}
            annotation |= {"category_id": int(rng.choice([7, 3, 11])), "iscrowd": 0}
            annotation |= {"ignore": int(rng.random() < 0.2)} if federated else {"iscrowd": int(rng.random() < 0.1)}
            truth["annotations"].append(annotation)
    found = []
    for _ in range(700):
        box = [float(v) for v in rng.integers(1, 8, 4) * 8]
        found.append({"image_id": int(rng.integers(1, 6)), "category_id": int(rng.choice([7, 3, 11, 90]))})
        found[-1] |= {"bbox": box, "score": round(float(rng.random()), 1)}
    return truth, found


@pytest.mark.parametrize("pairs", [1, 300, 1 << 21])
@pytest.mark.parametrize("seed", range(4))
def test_every_class_figure_equals_pycocotools_at_any_chunk_size(seed, pairs, monkeypatch):
    monkeypatch.setattr("denserc.evaluation.scoring.matching._PAIRS", pairs)
    truth, found = crowded(seed)
    ours, theirs = (
        score_detections(truth, found, category_ids=generated.CATEGORY_IDS, max_dets=20, backend=backend)
        for backend in (Backend.COLUMNS, Backend.REFERENCE)
    )
    np.testing.assert_allclose(ours.measures, theirs.measures, rtol=0, atol=1e-9)
    assert 0.1 < ours.mean("AP") < 99 and np.isnan(ours.measures).any()


@pytest.mark.parametrize("seed", range(3))
def test_every_class_equals_the_library_by_lvis_rules(seed):
    truth, found = crowded(seed, federated=True)
    for annotation in truth["annotations"]:
        annotation["ignore"] = 0  # faster_coco_eval does not read it
    ours, theirs = (
        score_detections(
            truth, found, category_ids=generated.CATEGORY_IDS, max_dets=90, federated=True, backend=backend
        )
        for backend in (Backend.COLUMNS, Backend.FASTER)
    )
    np.testing.assert_allclose(ours.measures, theirs.measures, rtol=0, atol=1e-9)


def test_a_table_of_detections_is_the_list_it_was_made_from():
    truth = generated.ground_truth(2)
    found = generated.detections(truth, 2, masks=True)
    table = Detections.from_results(iter(found))
    assert list(table.results()) == found and table.have_masks
    assert [json.loads(line) for line in table.lines()] == found
    boxes = [{k: v for k, v in d.items() if k != "segmentation"} for d in found]
    assert [json.loads(line) for line in Detections.from_results(boxes).lines()] == boxes
    mixed = Detections.joined([table, Detections.from_results(boxes)])
    assert list(mixed.results()) == found + boxes and not mixed.have_masks
    assert list(mixed[len(found) :].results()) == boxes
    assert len(Detections.from_results([])) == len(Detections.joined([])) == 0


def test_masks_without_boxes_get_the_box_around_them():
    mask = generated.rle(generated.box_mask([10, 20, 30, 40]))
    table = Detections.from_results([{"image_id": 1, "category_id": 7, "score": 1, "segmentation": mask}])
    assert table.boxes.tolist() == [[10, 20, 30, 40]]


@pytest.mark.parametrize("bad", [{}, 3, {"image_id": 1, "category_id": 2, "score": "x", "bbox": [0, 0, 1, 1]}])
def test_an_entry_that_is_no_detection_is_named(bad):
    good = {"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [0, 0, 1, 1]}
    with pytest.raises(DataError, match="entry 2 is no detection"):
        Detections.from_results([good, good, bad])


def test_the_best_are_kept_and_of_equals_the_earlier():
    rows = [(1, 7, 0.5), (1, 7, 0.9), (1, 3, 0.5), (2, 7, 0.5), (1, 3, 0.1)]
    found = Detections.from_results(
        {"image_id": i, "category_id": c, "score": s, "bbox": [0, 0, 1, 1]} for i, c, s in rows
    )
    assert best_of_class(found, 2).tolist() == [True, True, True, False, True]
    assert best_of_image(found, 2).tolist() == [True, True, False, True, False]


def test_lvis_objects_to_ignore_are_neither_missed_nor_false():
    truth = generated.ground_truth(0, images=1, federated=True)
    objects = [{"id": i, "image_id": 1, "category_id": 7, "bbox": [40.0 * i, 0.0, 30.0, 30.0]} for i in (1, 2)]
    truth["annotations"] = [objects[0], {**objects[1], "ignore": 1}]
    truth["images"][0]["not_exhaustive_category_ids"] = []
    found = [{"image_id": 1, "category_id": 7, "bbox": o["bbox"], "score": o["id"] / 2} for o in objects]
    for given in (found, found[:1]):
        scores = score_detections(truth, given, category_ids=[7], shape=Shape.BOXES, federated=True)
        assert scores.mean("AP") == pytest.approx(100.0)
