"""Test-time flip: the mean of both views, checked by symmetry and by hand."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from denserc.detection.modeling.postprocess import DetectionRules
from denserc.detection.modeling.test_time_flip import infer_with_flip, mirror_boxes

SIZES = ((64, 64), (48, 40))  # the second is padded: its own width is mirrored, not the network input's


def detector(tiny, tiny_config, masks=False, **changes):
    cfg = tiny_config(masks)
    cfg.MODEL.RPN.NMS_THRESH = 0.9
    model = tiny(masks, cfg=cfg, flip=True, **changes).eval()
    model.roi_heads.rules = DetectionRules(score_threshold=0.0, iou=0.5, limit=30)
    return model


def mirrored(inputs):
    return [{**one, "image": one["image"].flip(-1)} for one in inputs]


def test_mirroring_twice_is_the_identity_and_keeps_corner_order():
    boxes = torch.tensor([[1.0, 2.0, 5.0, 9.0]])
    assert mirror_boxes(boxes, 40).tolist() == [[35.0, 2.0, 39.0, 9.0]]
    assert torch.equal(mirror_boxes(mirror_boxes(boxes, 40), 40), boxes)


@pytest.mark.parametrize("masks", [False, True])
def test_a_mirrored_image_has_the_mirrored_detections(tiny, tiny_config, make_inputs, masks):
    model, inputs = detector(tiny, tiny_config, masks), make_inputs(SIZES)
    forward, backward = model(inputs), model(mirrored(inputs))
    for ahead, back, (_, width) in zip(forward, backward, SIZES, strict=True):
        ahead, back = ahead["instances"], back["instances"]
        assert len(ahead) == 30
        torch.testing.assert_close(ahead.scores, back.scores, atol=1e-5, rtol=0)
        assert torch.equal(ahead.pred_classes, back.pred_classes)
        mirror = mirror_boxes(back.pred_boxes.tensor, width)
        torch.testing.assert_close(ahead.pred_boxes.tensor, mirror, atol=1e-3, rtol=0)
        if masks:
            assert (ahead.pred_masks == back.pred_masks.flip(-1)).float().mean() > 0.99
    model.flip = False
    one, other = model(inputs)[0]["instances"], model(mirrored(inputs))[0]["instances"]
    assert not torch.allclose(one.scores, other.scores, atol=1e-5)  # so the assertion above is not trivial


def test_scores_and_boxes_are_the_mean_of_both_views(tiny, tiny_config, make_inputs):
    model, inputs = detector(tiny, tiny_config), make_inputs(SIZES)
    heads, regions = model.roi_heads, [torch.tensor([[4.0, 6.0, 30.0, 36.0]]), torch.tensor([[2.0, 2.0, 20.0, 40.0]])]
    seen = []

    def spy(scored, sizes):
        seen.append(scored)
        return type(heads).select(heads, scored, sizes)

    def given(images, features):
        flipped = given.calls % 2
        given.calls += 1
        placed = [mirror_boxes(r, s[1]) if flipped else r for r, s in zip(regions, images.image_sizes, strict=True)]
        return [
            Instances(size, proposal_boxes=Boxes(box), scores=torch.ones(1))
            for box, size in zip(placed, images.image_sizes, strict=True)
        ], {}

    given.calls = 0
    heads.select = spy
    model.proposal_generator.forward = given
    with torch.no_grad():
        _, proposals = infer_with_flip(model, inputs)
        expected = []
        for batch, turn in ((inputs, False), (mirrored(inputs), True)):
            images = model.preprocess(batch)
            features = model.backbone(images.tensor)
            boxes = [mirror_boxes(r, s[1]) if turn else r for r, s in zip(regions, images.image_sizes, strict=True)]
            levels = [features[name] for name in heads.in_features]
            scored = heads.score_boxes(levels, features["dense"], boxes, images.image_sizes)
            expected.append(
                [
                    (mirror_boxes(b, s[1]) if turn else b, c)
                    for (b, c), s in zip(scored, images.image_sizes, strict=True)
                ]
            )
    assert [len(p) for p in proposals] == [1, 1]  # the same region of both views is one
    for (boxes, scores), (box0, score0), (box1, score1) in zip(seen[0], *expected, strict=True):
        torch.testing.assert_close(boxes, (box0 + box1) / 2)
        torch.testing.assert_close(scores, (score0 + score1) / 2)
        assert not torch.equal(score0, score1)


def test_larger_inputs_at_test_alone(tiny, make_inputs):
    model = tiny(input_size=64, test_input_size=96)
    inputs = make_inputs(((64, 48),))
    assert model.train().preprocess(inputs).tensor.shape[-2:] == (64, 64)
    assert model.eval().preprocess(inputs).tensor.shape[-2:] == (96, 96)
    assert tiny(input_size=64).eval().preprocess(inputs).tensor.shape[-2:] == (64, 64)
