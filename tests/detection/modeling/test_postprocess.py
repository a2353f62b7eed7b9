from dataclasses import replace

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import batched_nms, box_iou, nms

from denserc.detection.modeling.options import Suppression
from denserc.detection.modeling.postprocess import (
    DetectionRules,
    _best,
    grouped_nms,
    select_detections,
    to_original_size,
)

RULES = DetectionRules(score_threshold=0.1, iou=0.5, limit=10)


def candidates(n, groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + 10 + torch.rand(n, 2, generator=generator) * 50], dim=1)
    return boxes, torch.rand(n, generator=generator), torch.randint(groups, (n,), generator=generator)


def test_equals_suppression_group_by_group():
    boxes, scores, groups = candidates(3000, 7)
    reference = batched_nms(boxes, scores, groups, 0.5)
    assert torch.equal(grouped_nms(boxes, scores, groups, iou=0.5, limit=3000), reference)
    # Looking at the best candidates only, in rounds, changes nothing.
    for limit in (1, 100, 600):
        assert torch.equal(grouped_nms(boxes, scores, groups, iou=0.1, limit=limit), batched_nms(
            boxes, scores, groups, 0.1)[:limit])  # fmt: skip


def test_many_groups_stay_apart():
    boxes = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]]).repeat(5000, 1)
    scores, groups = torch.linspace(1, 0.5, 5000), torch.arange(5000)
    assert len(grouped_nms(boxes, scores, groups, iou=0.1, limit=5000)) == 5000


def test_nothing_to_suppress():
    assert grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), iou=0.5, limit=10).tolist() == []


def test_one_box_may_have_several_classes():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.5]])
    scores = torch.tensor([[0.9, 0.8, 0.0], [0.5, 0.95, 0.0]])
    result, rows = select_detections(boxes, scores, (20, 20), RULES)
    assert result.pred_classes.tolist() == [1, 0] and rows.tolist() == [1, 0]
    assert torch.equal(result.scores, torch.tensor([0.95, 0.9]))


def test_one_label_per_box_keeps_the_best_class_of_each():
    generator = torch.Generator().manual_seed(3)
    boxes, _, _ = candidates(200, 1)
    scores = torch.rand(200, 7, generator=generator)
    scores[5] = float("nan")
    scores[6, 2] = float("nan")
    scores[7] = 0.05
    rules = replace(RULES, iou=1.0, limit=10_000)
    every, rows = select_detections(boxes, scores, (300, 300), rules)
    one, own = select_detections(boxes, scores, (300, 300), replace(rules, one_label=True))
    assert len(rows) > len(own) and len(own) == len(set(own.tolist())) == 198  # without the rows of no score
    assert torch.equal(one.pred_classes, scores.nan_to_num(-1).argmax(dim=1)[own])
    assert torch.equal(one.scores, scores.nan_to_num(-1).amax(dim=1)[own])


@pytest.mark.parametrize("one_label", [False, True])
def test_class_agnostic_suppression_equals_nms_without_classes(one_label):
    boxes, _, _ = candidates(300, 1)
    scores = torch.rand(300, 4, generator=torch.Generator().manual_seed(1))
    rules = replace(RULES, limit=10_000, one_label=one_label, suppression=Suppression.CLASS_AGNOSTIC)
    result, rows = select_detections(boxes, scores, (300, 300), rules)
    best = scores.amax(dim=1)
    valid = (best > 0.1).nonzero()[:, 0]
    assert torch.equal(rows, valid[nms(boxes[valid], best[valid], 0.5)])
    overlap = box_iou(result.pred_boxes.tensor, result.pred_boxes.tensor).fill_diagonal_(0)
    assert overlap.max() <= 0.5
    per_class, _ = select_detections(boxes, scores, (300, 300), replace(rules, suppression=Suppression.PER_CLASS))
    assert len(per_class) > len(result)


def test_empty_boxes_are_kept_unless_asked():
    boxes, scores = torch.tensor([[5.0, 5.0, 5.0, 9.0]]), torch.tensor([[0.9]])
    assert len(select_detections(boxes, scores, (20, 20), RULES)[0]) == 1
    assert len(select_detections(boxes, scores, (20, 20), replace(RULES, drop_empty=True))[0]) == 0


def test_scores_that_are_not_numbers_never_become_detections():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, float("nan"), 9.0]])
    scores = torch.tensor([[float("nan")], [0.9]])
    assert len(select_detections(boxes, scores, (20, 20), RULES)[0]) == 0


def test_back_to_an_image_of_another_shape():
    result = Instances((50, 100), pred_boxes=Boxes(torch.tensor([[10.0, 10.0, 90.0, 40.0]])))
    result.pred_masks = torch.ones(1, 1, 28, 28)
    original = to_original_size(result, (100, 400))
    assert original.pred_boxes.tensor.tolist() == [[40, 20, 360, 80]]
    assert original.pred_masks.shape == (1, 100, 400)
    ys, xs = original.pred_masks[0].nonzero(as_tuple=True)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (40, 360, 20, 80)
    assert result.pred_boxes.tensor.tolist() == [[10, 10, 90, 40]]  # the argument is not changed


@pytest.mark.parametrize("count", [1, 7, 50, 200])
def test_the_best_scores_are_those_of_a_stable_sort(count):
    scores = (torch.rand(200, generator=torch.Generator().manual_seed(0)) * 20).floor()  # many equal
    expected = scores.argsort(descending=True, stable=True)[:count]
    assert torch.equal(_best(scores, count), expected)
    scores[[5, 17]] = float("nan")
    assert torch.equal(_best(scores, count), scores.argsort(descending=True, stable=True)[:count])
