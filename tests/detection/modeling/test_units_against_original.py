"""Single operations against recordings of MMDetection F-ViT (tests/fixtures/fvit)."""

import json

import numpy as np
import pytest
import torch

from denserc.detection.modeling.box_coding import BoxCoder
from denserc.detection.modeling.classifier import FusionExponents, fuse_scores
from denserc.detection.modeling.options import LowQualityMatch
from denserc.detection.modeling.poolers import align, assign_levels
from denserc.detection.modeling.postprocess import DetectionRules, grouped_nms, select_detections
from denserc.detection.modeling.rpn import AnchorGrid
from denserc.detection.modeling.sampling import IGNORED, IoUMatcher
from tests.paths import FIXTURES

FOLDER = FIXTURES / "fvit"
SETTINGS = json.loads((FOLDER / "settings.json").read_text())


@pytest.fixture(scope="module", params=["coco", "lvis"])
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def units(variant):
    file = np.load(FOLDER / f"{variant}_units.npz")
    return lambda name: torch.from_numpy(file[name])


@pytest.fixture(scope="module")
def fixed(variant):
    file = np.load(FOLDER / f"{variant}_fixed.npz")
    return lambda name: torch.from_numpy(file[name])


def test_anchors(units, variant):
    strides = (4, 8, 16, 32, 64) if variant == "coco" else (3.5, 7, 14, 28, 56)
    grid = AnchorGrid(strides=strides, scale=8, ratios=(0.5, 1.0, 2.0))
    for level, anchors in enumerate(grid([(3, 4)] * 5)):
        torch.testing.assert_close(grid.cells[level], units(f"base_anchors_{level}"), atol=1e-5, rtol=0)
        torch.testing.assert_close(anchors, units(f"grid_anchors_3x4_{level}"), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("stage", "weights"), [("rpn", (1, 1, 1, 1)), ("rcnn", (10, 10, 5, 5))])
def test_box_coder(units, variant, stage, weights):
    coder = BoxCoder(weights=weights)
    boxes, deltas = units("coder_boxes"), units("coder_deltas")
    encoded = coder.encode(boxes, boxes.flip(0))
    torch.testing.assert_close(encoded, units(f"coder_{stage}_encoded"), atol=1e-5, rtol=1e-5)
    unclipped = units(f"coder_{stage}_decoded_noclip")
    torch.testing.assert_close(coder.decode(boxes, deltas), unclipped, atol=1e-3, rtol=1e-6)
    size = SETTINGS[variant]["coder_image_size"]
    torch.testing.assert_close(coder.decode(boxes, deltas, size), units(f"coder_{stage}_decoded"), atol=1e-3, rtol=1e-6)


def test_levels(units):
    levels = assign_levels(units("level_boxes"), finest_scale=56.0, num_levels=4)
    assert torch.equal(levels, units("level_of_box"))


@pytest.mark.parametrize("resolution", [7, 1])
def test_roi_align(units, resolution):
    for path in ("mmcv", "tv"):
        pooled = align(units("ra_feat"), units("ra_rois"), stride=SETTINGS["roi_align_stride"], resolution=resolution)
        torch.testing.assert_close(pooled, units(f"ra_out{resolution}_{path}"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "positive", "negative", "low_quality", "least"),
    [
        ("rpn", 0.7, 0.3, LowQualityMatch.OVERWRITE, 0.3),
        ("rcnn_ovcoco", 0.5, 0.5, LowQualityMatch.NONE, 0.0),
        ("rcnn_ovlvis", 0.5, 0.5, LowQualityMatch.OVERWRITE, 0.5),
    ],
)
def test_assignment(units, name, positive, negative, low_quality, least):
    matcher = IoUMatcher(positive_iou=positive, negative_iou=negative, low_quality=low_quality, low_quality_iou=least)
    matches = matcher(units("asg_boxes"), units("asg_gt"))
    recorded = units(f"asg_{name}_gt_inds")
    assert torch.equal(torch.where(matches == IGNORED, -1, matches + 1), recorded)


@pytest.mark.parametrize("percent", [40, 50, 70])
def test_suppression(units, percent):
    boxes, scores, groups = units("nms_boxes"), units("nms_scores"), units("nms_ids")
    kept = grouped_nms(boxes, scores, groups, iou=percent / 100, limit=len(boxes))
    # MMDetection shifts all groups apart, or takes them one by one where there are many boxes.
    assert torch.equal(kept, units(f"nms_keep_{percent}_split"))
    assert torch.equal(kept, units(f"nms_keep_{percent}_joint"))


def test_fusion_and_final_detections(fixed, variant):
    settings = SETTINGS[variant]
    novel = torch.zeros(settings["num_classes"], dtype=torch.bool)
    novel[settings["novel_class_ids"]] = True
    exponents = FusionExponents(base=settings["alpha"], novel=settings["beta"], unsplit=0.0).for_classes(novel)
    fused = fuse_scores(fixed("det_logits").softmax(1), fixed("vlm_logits").softmax(1), exponents)
    torch.testing.assert_close(fused, fixed("fused_scores"), atol=2e-6, rtol=0)

    coder = BoxCoder(weights=(10, 10, 5, 5))
    for image, size in enumerate(settings["image_sizes"]):
        of_image = fixed("rois")[:, 0] == image
        result, _ = select_detections(
            coder.decode(fixed("rois")[of_image, 1:], fixed("deltas")[of_image], size),
            fused[of_image, :-1],
            tuple(size),
            DetectionRules(settings["score_threshold"], settings["nms_iou"], settings["limit"]),
        )
        assert torch.equal(result.pred_classes, fixed(f"det_labels_{image}"))
        torch.testing.assert_close(result.scores, fixed(f"det_scores_{image}"), atol=2e-6, rtol=0)
        torch.testing.assert_close(result.pred_boxes.tensor, fixed(f"det_boxes_{image}"), atol=1e-3, rtol=0)
