import contextlib
import io
import json
import math

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_evaluation import _evaluate_box_proposals
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO

from denserc.data.proposals import result_lines, write_results
from denserc.evaluation import build_evaluator, recall_evaluator, with_recall
from denserc.evaluation.detection import recall as proposals_module
from denserc.evaluation.detection.recall import proposal_recall
from denserc.structures import DataError
from tests.evaluation import generated


def boxes_of(truth):
    found = {}
    for a in truth["annotations"]:
        x, y, w, h = a["bbox"]
        found.setdefault(a["image_id"], []).append([x, y, x + w, y + h])
    return {image: torch.tensor(boxes) for image, boxes in found.items()}


def test_the_truth_as_proposals_is_all_recalled():
    truth = generated.ground_truth(0)
    recall = proposal_recall(boxes_of(truth), truth, category_ids=generated.CATEGORY_IDS)
    assert recall == {"AR@100": 100.0, "AR@300": 100.0, "AR@1000": 100.0}


def test_recall_grows_with_the_limit_and_matches_one_to_one():
    truth = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10]} for _ in range(2)],
        "categories": [{"id": 7}],
    }
    same = {1: torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 10.0]])}
    recall = proposal_recall(same, truth, category_ids=[7], limits=(1, 2, 3))
    assert recall == {"AR@1": pytest.approx(50.0), "AR@2": pytest.approx(50.0), "AR@3": pytest.approx(100.0)}


def test_no_proposals_is_zero_recall_and_no_objects_is_nan():
    truth = generated.ground_truth(0)
    assert proposal_recall({}, truth, category_ids=generated.CATEGORY_IDS)["AR@100"] == 0.0
    assert math.isnan(proposal_recall({}, truth, category_ids=[5])["AR@100"])


def shaken(truth, seed=0, number=40):
    """Random boxes and shaken objects for every image, as a model gives them: not sorted by score."""
    generator = torch.Generator().manual_seed(seed)
    objects = boxes_of(truth)
    for image in truth["images"]:
        corner = torch.rand(number, 2, generator=generator) * 100
        boxes = torch.cat([corner, corner + 5 + torch.rand(number, 2, generator=generator) * 50], dim=1)
        if image["id"] in objects:
            near = objects[image["id"]] + 4 * torch.randn(objects[image["id"]].shape, generator=generator)
            boxes = torch.cat([near, boxes])
        instances = Instances((generated.SIDE, generated.SIDE), proposal_boxes=Boxes(boxes))
        instances.scores = torch.rand(len(boxes), generator=generator)
        yield {"image_id": image["id"]}, {"proposals": instances, "instances": Instances((160, 160), **NOTHING)}


NOTHING = {
    "pred_boxes": Boxes(torch.zeros(0, 4)),
    "scores": torch.zeros(0),
    "pred_classes": torch.zeros(0, dtype=torch.int64),
}


def test_equals_detectron2s_recall(registered):
    truth = generated.ground_truth(1)
    evaluator = recall_evaluator(build_evaluator(registered(truth)))
    given = list(shaken(truth, number=150))
    for one, output in given:
        evaluator.process([one], [output])
    ours = evaluator.evaluate()["proposals"]
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = truth
        api.createIndex()
    predictions = []
    for one, output in given:
        proposals = output["proposals"]
        theirs = Instances(proposals.image_size, proposal_boxes=proposals.proposal_boxes)
        theirs.objectness_logits = proposals.scores
        predictions.append({"image_id": one["image_id"], "proposals": theirs})
    for limit in (100, 1000):
        expected = _evaluate_box_proposals(predictions, api, limit=limit)["ar"]
        assert ours[f"AR@{limit}_all"] == pytest.approx(100 * float(expected), abs=1e-4)  # theirs is float32
    assert 0 < ours["AR@100_all"] <= ours["AR@300_all"] == ours["AR@1000_all"] < 100


def test_recall_of_novel_and_base_uses_the_detection_groups(registered, tmp_path):
    truth = generated.ground_truth(1)
    name = registered(truth, novel=("class 3", "class 90"))
    blind = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] not in (3, 90)]}
    both = with_recall(build_evaluator(name, tmp_path))
    both.reset()
    for one, output in shaken(truth):
        found = boxes_of(blind).get(one["image_id"], torch.zeros(0, 4))
        output["proposals"] = Instances((160, 160), proposal_boxes=Boxes(found), scores=torch.ones(len(found)))
        both.process([one], [output])
    results = both.evaluate()
    assert list(results) == ["ov_coco", "proposals"]
    assert results["proposals"]["AR@100_base"] == 100.0 > results["proposals"]["AR@100_novel"]
    assert {name.split("_")[1] for name in results["proposals"]} == {"novel", "base", "all"}
    assert not any("-" in name for name in results["proposals"])
    written = json.loads((tmp_path / "proposals_results.json").read_text())
    assert written["metrics"] == pytest.approx(results["proposals"])
    assert written["settings"]["classes"] == 6 and written["settings"]["most_proposals_of_an_image"] > 0


def test_two_ranks_measure_the_same_and_only_one_returns(registered, monkeypatch):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=("class 3",))
    parts = [recall_evaluator(build_evaluator(name)) for _ in range(2)]
    whole = recall_evaluator(build_evaluator(name))
    for i, (one, output) in enumerate(shaken(truth)):
        whole.process([one], [output])
        parts[i % 2].process([one], [output])
        if i == 0:
            parts[1].process([one], [output])  # a sampler that pads
    expected = whole.evaluate()
    monkeypatch.setattr(proposals_module.comm, "synchronize", lambda: None)
    monkeypatch.setattr(proposals_module.comm, "gather", lambda data, dst: [part._by_image for part in parts])
    assert parts[0].evaluate() == expected
    monkeypatch.setattr(proposals_module.comm, "is_main_process", lambda: False)
    assert parts[1].evaluate() == {}


def test_proposals_file_gives_the_same_recall_up_to_rounding(registered, tmp_path):
    truth = generated.ground_truth(3)
    evaluator = recall_evaluator(build_evaluator(registered(truth, novel=("class 3",))))
    lines = []
    for one, output in shaken(truth):
        evaluator.process([one], [output])
        proposals = output["proposals"]
        lines += result_lines(
            f"{one['image_id']:012d}", proposals.proposal_boxes.tensor.numpy(), proposals.scores.numpy()
        )
    write_results(tmp_path / "proposals.json.gz", lines)
    again = evaluator.evaluate_file(tmp_path / "proposals.json.gz")["proposals"]
    assert again == pytest.approx(evaluator.evaluate()["proposals"], abs=1.0)
    for image in truth["images"]:
        image["id"] += 1000
    other = recall_evaluator(build_evaluator(registered({**truth, "annotations": []})))
    with pytest.raises(DataError, match="none of them in this data set"):
        other.evaluate_file(tmp_path / "proposals.json.gz")


def test_a_model_without_proposals_is_refused(registered):
    evaluator = recall_evaluator(build_evaluator(registered(generated.ground_truth(0))))
    with pytest.raises(DataError, match="TEST.PROPOSAL_RECALL"):
        evaluator.process([{"image_id": 1}], [{"instances": Instances((1, 1), **NOTHING)}])


def test_rare_common_frequent_for_lvis(registered):
    truth = generated.ground_truth(1, federated=True)
    name = registered(truth, evaluator_type="ov_lvis")
    assert MetadataCatalog.get(name).evaluator_type == "ov_lvis"
    metrics = recall_evaluator(build_evaluator(name)).evaluate_boxes(boxes_of(truth))["proposals"]
    assert metrics["AR@100_rare"] == metrics["AR@1000_all"] == 100.0
