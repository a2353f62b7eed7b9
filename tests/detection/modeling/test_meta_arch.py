"""Properties of the whole detector, on a stand-in encoder of width 32."""

import copy

import pytest
import torch

from denserc.detection.modeling.options import Padding
from denserc.detection.modeling.postprocess import DetectionRules
from denserc.engine.solver import build_optimizer
from denserc.structures import BACKGROUND, ConfigurationError, DataError, FingerprintMismatchError, TextEmbeddings

NAMES = ("cup", "ball", "lamp", "kite", "boat")  # the vocabulary of the tiny detector


def losses_of(model, inputs, seed=0):
    torch.manual_seed(seed)
    return model.train()(inputs)


def frozen_state(model):
    parts = {"encoder": model.backbone.encoder, "text": model.text_tower}
    return {f"{part}.{k}": v.clone() for part, module in parts.items() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("masks", [False, True])
def test_gradients_reach_every_trainable_parameter_and_no_other(tiny, masks, make_inputs):
    model = tiny(masks)
    losses = losses_of(model, make_inputs(masks=masks))
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"} | (
        {"loss_mask"} if masks else set()
    )
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("backbone.encoder.", "text_tower."))
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
        if not frozen:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_training_leaves_both_towers_as_they_are_to_the_bit(tiny, make_inputs, tiny_config):
    model = tiny()
    before = frozen_state(model)
    cfg = tiny_config()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = 0.1, 0.1
    optimizer = build_optimizer(cfg, model)
    start = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    for seed in range(3):
        optimizer.zero_grad()
        sum(losses_of(model, make_inputs(), seed).values()).backward()
        optimizer.step()
    after = frozen_state(model)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(not torch.equal(p, start[name]) for name, p in model.named_parameters() if p.requires_grad)
    assert not model.backbone.encoder.training and not model.text_tower.training and model.backbone.upsampler.training


def test_a_vocabulary_touches_no_weight(tiny, make_inputs):
    model = tiny().eval()
    before = copy.deepcopy(model.state_dict())
    first = model(make_inputs())[0]["instances"]
    model.set_vocabulary(["zebra", "yacht"], templates=("a drawing of a {}.", "{}"))
    second = model(make_inputs())[0]["instances"]
    assert model.vocabulary.names == ("zebra", "yacht") and not model.vocabulary.novel
    assert second.pred_classes.max() <= 1 < first.pred_classes.max()
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    model.set_vocabulary(NAMES, novel=["kite", "boat"])
    again = model(make_inputs())[0]["instances"]
    assert torch.equal(again.scores, first.scores) and torch.equal(again.pred_classes, first.pred_classes)


def test_order_of_names_does_not_matter(tiny, make_inputs):
    model = tiny().eval()
    model.roi_heads.rules = DetectionRules(0.0, 0.5, 1000)

    def scores(names):
        model.set_vocabulary(names, novel=["kite", "boat"])
        found = model(make_inputs())[0]["instances"]
        return {name: found.scores[found.pred_classes == i].sort().values for i, name in enumerate(names)}

    forward, backward = scores(NAMES), scores(NAMES[::-1])
    for name in NAMES:
        torch.testing.assert_close(forward[name], backward[name], atol=1e-6, rtol=0)


def test_with_exponents_of_zero_the_detector_speaks_alone(tiny, make_inputs, tiny_config):
    cfg = tiny_config()
    cfg.MODEL.FVIT.FUSION.BASE = cfg.MODEL.FVIT.FUSION.NOVEL = 0.0
    model = tiny(cfg=cfg).eval()
    inputs = make_inputs()
    found = model(inputs)[0]["instances"].scores
    with torch.no_grad():
        model.roi_heads.encoder_temperature *= 10
    assert torch.equal(model(inputs)[0]["instances"].scores, found)


@pytest.mark.parametrize("sizes", [((40, 72),), ((64, 48), (32, 64)), ((70, 130),)])
def test_images_that_are_not_square(tiny, sizes, make_inputs):
    for padding in Padding:
        model = tiny(padding=padding, input_size=16).eval()
        inputs = make_inputs(sizes)
        images = model.preprocess(inputs)
        h, w = images.tensor.shape[-2:]
        longest = -(-max(max(size) for size in sizes) // 8) * 8
        if padding is Padding.SQUARE:
            assert (h, w) == (longest, longest)
        else:
            assert (h, w) == tuple(-(-max(size[i] for size in sizes) // 8) * 8 for i in (0, 1))
        for output, (height, width) in zip(model(inputs), sizes, strict=True):
            boxes = output["instances"].pred_boxes.tensor
            assert output["instances"].image_size == (height, width) and len(boxes)
            assert (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all() and (boxes >= 0).all()
        assert all(torch.isfinite(loss) for loss in losses_of(model, inputs).values())


def test_detections_are_given_in_the_original_image(tiny, make_inputs):
    model = tiny().eval()
    inputs = make_inputs(((64, 64),))
    small = model(inputs)[0]["instances"].pred_boxes.tensor
    inputs[0].update(height=128, width=192)
    large = model(inputs)[0]["instances"].pred_boxes.tensor
    torch.testing.assert_close(large, small * torch.tensor([3.0, 2.0, 3.0, 2.0]))


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects(tiny, masks, make_inputs):
    model = tiny(masks)
    losses = losses_of(model, make_inputs(boxes_per_image=0, masks=masks))
    sum(losses.values()).backward()
    assert losses["loss_rpn_loc"] == 0 and losses["loss_box_reg"] == 0 and losses["loss_cls"] > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_proposed(tiny, masks, make_inputs, tiny_config):
    cfg = tiny_config(masks)
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 0
    model = tiny(masks, cfg=cfg).eval()
    before = copy.deepcopy(model.state_dict())
    found = model(make_inputs())[0]["instances"]
    assert len(found) == 0 and found.has("pred_masks") == masks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_masks_have_the_size_of_the_image(tiny, make_inputs):
    found = tiny(masks=True).eval()(make_inputs(((48, 64),)))[0]["instances"]
    assert found.pred_masks.shape == (len(found), 48, 64) and found.pred_masks.dtype == torch.bool


def test_mask_head_without_masks_says_what_to_do(tiny, make_inputs):
    with pytest.raises(ConfigurationError, match="INPUT.MASK_FORMAT"):
        losses_of(tiny(masks=True), make_inputs(masks=False))


def test_embeddings_of_another_text_tower_are_refused(tiny):
    model = tiny()
    vectors = torch.eye(16)[:2]
    with pytest.raises(FingerprintMismatchError):
        model.set_text_embeddings(TextEmbeddings(("cup", BACKGROUND), vectors, fingerprint="another"))
    model.set_text_embeddings(TextEmbeddings(("cup", BACKGROUND), vectors, model.text_tower.fingerprint()))
    assert model.vocabulary.names == ("cup",)


def test_vocabularies_that_cannot_be(tiny):
    model = tiny()
    with pytest.raises(ConfigurationError, match="background"):
        model.set_vocabulary(["cup", "background"])
    with pytest.raises(DataError, match="novel|Novel"):
        model.set_vocabulary(["cup"], novel=["kite"])
    assert model.vocabulary.names == NAMES


def test_training_does_not_depend_on_the_names_of_novel_classes(tiny, make_inputs):
    model = tiny()
    inputs = make_inputs()
    first = losses_of(model, inputs)["loss_cls"]
    model.set_vocabulary([*NAMES[:3], "wholly", "other"], novel=["wholly", "other"])
    torch.testing.assert_close(losses_of(model, inputs)["loss_cls"], first)
