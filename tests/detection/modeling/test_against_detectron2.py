"""Equal to Detectron2 where docs/DETECTRON2.md calls a part the same."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, pairwise_iou
from torch import nn

from denserc.detection.data import FitSquare
from denserc.detection.modeling.box_coding import BoxCoder
from denserc.detection.modeling.options import LowQualityMatch, Resampling
from denserc.detection.modeling.poolers import RegionPooler
from denserc.detection.modeling.postprocess import DetectionRules, select_detections
from denserc.detection.modeling.pyramid import FeaturePyramid
from denserc.detection.modeling.rpn import AnchorGrid, FViTRPN
from denserc.detection.modeling.sampling import IGNORED, NEGATIVE, IoUMatcher

STRIDES = [4, 8, 16, 32]


def some_boxes(count, seed, largest=400.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 120
    side = torch.rand(count, 2, generator=generator) ** 2 * largest + 2
    return torch.cat([corner, corner + side], dim=1)


def test_anchors():
    ratios = [0.5, 1.0, 2.0]
    theirs = DefaultAnchorGenerator(
        sizes=[[8 * s] for s in STRIDES], aspect_ratios=[ratios], strides=STRIDES, offset=0.0
    )
    ours = AnchorGrid(strides=STRIDES, scale=8.0, ratios=ratios)
    sizes = [(20, 13), (10, 7), (5, 4), (3, 2)]
    for expected, found in zip(theirs([torch.zeros(1, 1, *size) for size in sizes]), ours(sizes), strict=True):
        torch.testing.assert_close(found, expected.tensor)


def test_levels_and_pooled_values():
    maps = [torch.randn(2, 5, 160 // stride, 160 // stride) for stride in STRIDES]
    boxes = [some_boxes(40, 0), some_boxes(30, 1)]
    theirs = ROIPooler(7, [1 / stride for stride in STRIDES], sampling_ratio=0, pooler_type="ROIAlignV2")
    ours = RegionPooler(resolution=7, strides=STRIDES, finest_scale=56.0)
    torch.testing.assert_close(ours(maps, boxes), theirs(maps, [Boxes(one) for one in boxes]))


def test_matches_with_the_low_quality_rule_of_detectron2():
    candidates, truth = some_boxes(300, 2), some_boxes(12, 3)
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(
        pairwise_iou(Boxes(truth), Boxes(candidates))
    )
    rule = {"positive_iou": 0.7, "negative_iou": 0.3, "low_quality": LowQualityMatch.KEEP_BEST}
    found = IoUMatcher(**rule)(candidates, truth)
    assert (labels == 1).any() and (labels == -1).any()
    assert torch.equal(found[labels == 1], matches[labels == 1])
    assert (found[labels == 0] == NEGATIVE).all() and (found[labels == -1] == IGNORED).all()


def test_selected_proposals():
    anchors, logits = [some_boxes(200, 4), some_boxes(100, 5)], [torch.randn(1, 200), torch.randn(1, 100)]
    expected = find_top_rpn_proposals([one[None] for one in anchors], logits, [(200, 220)], 0.7, 80, 50, 0.0, False)[0]
    ours = FViTRPN(
        in_features=[], head=nn.Identity(), anchors=nn.Identity(), coder=BoxCoder(weights=(1, 1, 1, 1)), matcher=None,
        sampler=None, pre_nms=(80, 80), post_nms=(50, 50), nms_iou=0.7,
    ).eval()  # fmt: skip
    found = ours.proposals(logits, [torch.zeros(1, len(one), 4) for one in anchors], anchors, [(200, 220)])[0]
    torch.testing.assert_close(found.proposal_boxes.tensor, expected.proposal_boxes.tensor, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.objectness_logits.sigmoid())


def test_selected_detections():
    boxes, scores = some_boxes(300, 6).clamp(0, 300), torch.rand(300, 21, generator=torch.Generator().manual_seed(7))
    expected, _ = fast_rcnn_inference_single_image(boxes, scores, (300, 300), 0.3, 0.5, 100)
    rules = DetectionRules(score_threshold=0.3, iou=0.5, limit=100)
    found, _ = select_detections(boxes, scores[:, :-1], (300, 300), rules)
    assert len(found) == 100 and torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_extra_level_of_the_pyramid():
    pyramid = FeaturePyramid(in_channels=3, out_channels=4, num_inputs=2, norm=None)
    *_, last, extra = pyramid([torch.randn(1, 3, 10, 14), torch.randn(1, 3, 5, 7)])
    assert torch.equal(extra, LastLevelMaxPool()(last)[0])


@pytest.mark.parametrize("seed", range(5))
def test_random_scale(seed):
    image = np.zeros((333, 501, 3), np.uint8)
    np.random.seed(seed)
    expected = T.ResizeScale(0.1, 2.0, 640, 640).get_transform(image)
    np.random.seed(seed)
    found = FitSquare(640, (0.1, 2.0), resampling=Resampling.PILLOW_BILINEAR).get_transform(image)
    assert (found.new_h, found.new_w) == (expected.new_h, expected.new_w)
