import math

import generated
import pytest
import torch

from denserc.evaluation.proposals import proposal_recall


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


def test_recall_grows_with_the_limit_and_one_proposal_serves_one_object():
    truth = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10]} for _ in range(2)],
    }
    same = {1: torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 10.0]])}
    recall = proposal_recall(same, truth, category_ids=[7], limits=(1, 2, 3))
    assert recall == {"AR@1": pytest.approx(50.0), "AR@2": pytest.approx(50.0), "AR@3": pytest.approx(100.0)}


def test_nothing_proposed_is_zero_and_nothing_sought_is_not_a_number():
    truth = generated.ground_truth(0)
    assert proposal_recall({}, truth, category_ids=generated.CATEGORY_IDS)["AR@100"] == 0.0
    assert math.isnan(proposal_recall({}, truth, category_ids=[5])["AR@100"])
