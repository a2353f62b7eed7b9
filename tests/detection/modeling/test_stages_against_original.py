"""Every stage of the detector against recordings of MMDetection F-ViT, with its weights.

Skips where the recordings are not beside the repository. Tolerances are float32's own, as measured on MMDetection F-ViT
by running it in float64: maps 2e-5, detector logits 5e-4 (cosines times a temperature), boxes 1e-3 pixels, losses 1e-5.
"""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from torch import nn

from denserc.data.images.reading import read_rgb
from denserc.detection.convert import original_to_ours
from denserc.detection.data import FitSquare
from denserc.detection.modeling.heads import mask_targets
from denserc.detection.modeling.options import Resampling
from denserc.detection.modeling.poolers import align, assign_levels, to_rois
from denserc.detection.modeling.sampling import IGNORED

IMAGES = (0, 1, 2)  # the third is not square: its padding takes part


def close(given, recorded, atol):
    torch.testing.assert_close(given, recorded, atol=atol, rtol=1e-6)


def image_size(original, image):
    return tuple(original("inputs", "img_shape")[image][:2].tolist())


@pytest.fixture(scope="module", params=IMAGES)
def one(request, original, original_detector):
    """One recorded image through our detector: its index, size and features."""
    pixels = original("inputs", f"image_{request.param}")[None]
    with torch.no_grad():
        features = original_detector.backbone(pixels)
    return request.param, image_size(original, request.param), pixels, features


def levels(features, count=5):
    return [features[f"p{i + 2}"] for i in range(count)]


@pytest.mark.parametrize("image", IMAGES)
def test_input(original, original_detector, recorded_folder, image):
    pixels = read_rgb(recorded_folder / f"{original.variant}_img{image}.png")
    resize = FitSquare(original.settings["spec"]["size"], resampling=Resampling.OPENCV_BILINEAR)
    resized = resize.get_transform(pixels).apply_image(pixels)
    assert resized.shape[:2] == image_size(original, image)
    images = original_detector.preprocess([{"image": torch.from_numpy(resized.transpose(2, 0, 1).copy())}])
    close(images.tensor[0], original("inputs", f"image_{image}"), 1e-5)


def test_backbone(original, original_detector, one):
    image, _, pixels, features = one
    backbone = original_detector.backbone
    with torch.no_grad():
        _, maps = backbone.encoder.forward_with_maps(pixels, backbone.blocks)
        for i, upsampled in enumerate(backbone.upsampler(maps)):
            close(upsampled[0], original(f"backbone_img{image}", f"map{i}"), 2e-5)
    close(features["dense"][0], original(f"backbone_img{image}", "vlm"), 2e-6)
    for i, level in enumerate(levels(features)):
        close(level[0], original(f"fpn_rpn_img{image}", f"p{i + 2}"), 2e-5)


@torch.no_grad()
def test_proposals(original, original_detector, one):
    image, size, pixels, features = one
    rpn = original_detector.proposal_generator
    for i, (logits, deltas) in enumerate(zip(*rpn.head(levels(features)), strict=True)):
        close(logits[0], original(f"fpn_rpn_img{image}", f"rpn_cls_{i}").permute(1, 2, 0).flatten(), 2e-5)
        close(deltas[0], original(f"fpn_rpn_img{image}", f"rpn_reg_{i}").permute(1, 2, 0).reshape(-1, 4), 2e-5)
    proposals, _ = rpn(ImageList(pixels, [size]), features)
    ours = torch.cat([proposals[0].proposal_boxes.tensor, proposals[0].scores[:, None]], dim=1)
    assert_same_set(ours, original(f"fpn_rpn_img{image}", "proposals"))


@torch.no_grad()
def test_second_stage_on_fixed_regions(original, original_detector, one):
    image, size, _, features = one
    heads = original_detector.roi_heads
    of_image = original("fixed", "rois")[:, 0] == image
    boxes = original("fixed", "rois")[of_image, 1:]
    detector, encoder, deltas = heads.scores(levels(features, 4), features["dense"], [boxes])
    close(detector, original("fixed", "det_logits")[of_image], 5e-4)
    close(encoder, original("fixed", "vlm_logits")[of_image], 1e-4)
    close(deltas, original("fixed", "deltas")[of_image], 5e-5)
    (result,) = heads.detect(levels(features, 4), features["dense"], [boxes], [size])
    labels, scores, recorded = (original("fixed", f"det_{what}_{image}") for what in ("labels", "scores", "boxes"))
    close(result.scores, scores, 2e-5)
    same = result.pred_classes[:, None] == labels
    same &= (result.scores[:, None] - scores).abs() <= 2e-5  # near ties may have swapped
    same &= (result.pred_boxes.tensor[:, None] - recorded).abs().amax(dim=2) <= 1e-3
    assert same.any(dim=0).all() and same.any(dim=1).all()


@torch.no_grad()
def test_regions_are_pooled_as_there(original, original_detector, one):
    image, _, _, features = one
    heads, kinds = original_detector.roi_heads, ("", "edge_") if image == 0 else ("",)
    for kind in kinds:
        of_image = original("fixed", f"{kind}rois")[:, 0] == image
        boxes = original("fixed", f"{kind}rois")[of_image, 1:]
        assigned = assign_levels(boxes, finest_scale=heads.pooler.finest_scale, num_levels=4)
        assert torch.equal(assigned, original("fixed", f"{kind}levels")[of_image])
        dense = align(features["dense"], to_rois([boxes]), stride=heads.dense_stride, resolution=1).flatten(1)
        close(dense, original("fixed", f"{kind}vlm_roi_feats")[of_image], 2e-6)
        if image == 0:
            recorded = original("fixed_roifeats", "edge_bbox_feats" if kind else "bbox_feats_img0")
            close(heads.pooler(levels(features, 4), [boxes]), recorded, 2e-5)


@torch.no_grad()
def test_masks_of_fixed_detections(original, original_detector, one):
    if original.variant != "lvis":
        pytest.skip("the OV-COCO detector has no masks")
    image, _, _, features = one
    heads = original_detector.roi_heads
    pooled = heads.mask_pooler(levels(features, 4), [original("fixed", f"det_boxes_{image}")])
    close(heads.mask_head(pooled)[:, 0], original("masks", f"fixed_mask_logits_{image}"), 1e-3)


def test_constants(original, original_detector):
    heads, recorded = original_detector.roi_heads, lambda name: original("inputs", name)
    background = torch.tensor([False])
    assert torch.equal(torch.cat([heads.classes.novel, background]), recorded("novel_idx"))
    assert torch.equal(~torch.cat([heads.classes.novel, background]), recorded("base_idx"))
    exponents = heads.exponents.for_classes(heads.classes.novel)
    close(exponents, torch.where(recorded("base_idx"), recorded("alpha"), recorded("beta")), 0)
    close(heads.classifier.temperature.detach(), recorded("det_temperature"), 0)
    assert heads.encoder_temperature == recorded("vlm_temperature").item()


@torch.no_grad()
def test_odd_regions(original, original_detector):
    features = original_detector.backbone(original("inputs", "image_0")[None])
    boxes = original("fixed", "edge_rois")[:, 1:]
    detector, encoder, deltas = original_detector.roi_heads.scores(levels(features, 4), features["dense"], [boxes])
    for given, name, atol in ((detector, "det_logits", 5e-4), (encoder, "vlm_logits", 1e-4), (deltas, "deltas", 5e-5)):
        recorded = original("fixed", f"edge_{name}")
        # A region wholly outside pools only zeros: MMDetection F-ViT divides 0 by 0, we define the cosine as 0.
        finite = torch.isfinite(recorded).all(dim=1)
        close(given[finite], recorded[finite], atol)
        assert torch.isfinite(given).all()


@torch.no_grad()
def test_end_to_end(original, original_detector, one):
    image, size, pixels, features = one
    images = ImageList(pixels, [size])
    proposals, _ = original_detector.proposal_generator(images, features)
    (result,), _ = original_detector.roi_heads(images, features, proposals)
    assert torch.equal(result.pred_classes, original("e2e", f"e2e_labels_{image}"))
    close(result.scores, original("e2e", f"e2e_scores_{image}"), 1e-4)
    close(result.pred_boxes.tensor, original("e2e", f"e2e_boxes_{image}"), 1e-3)
    h, w = original("inputs", "ori_shape")[image][:2].tolist()
    if result.has("pred_masks"):
        close(torch.logit(result.pred_masks[:, 0]), original("masks", f"e2e_mask_logits_{image}"), 5e-3)
    rescaled = original_detector._postprocess(result, {"height": h, "width": w})
    close(rescaled.pred_boxes.tensor, original("e2e", f"e2e_rescaled_boxes_{image}"), 2e-3)
    if result.has("pred_masks"):
        recorded = unpack(original, "masks", f"e2e_rescaled_masks_packed_{image}", f"e2e_rescaled_masks_shape_{image}")
        differing = (rescaled.pred_masks[: len(recorded)] != recorded).float().mean()
        assert differing < 1e-4  # pixels whose probability is 1/2 to the last bits


@pytest.mark.parametrize("recording", ["train_bneval", "train_bnbatch"])
def test_training_step(original, recording):
    model = original.detector().train()
    if recording == "train_bneval":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    rpn, heads = model.proposal_generator, model.roi_heads
    sizes = [image_size(original, i) for i in (0, 1)]
    images = ImageList(torch.stack([original("inputs", f"image_{i}") for i in (0, 1)]), sizes)
    truth = [recorded_truth(original, recording, i, sizes[i]) for i in (0, 1)]
    features = model.backbone(images.tensor)

    anchors = torch.cat(rpn.anchors([tuple(level.shape[-2:]) for level in levels(features)]))
    proposals = []
    for i in (0, 1):
        boxes = truth[i].gt_boxes.tensor
        recorded = original(recording, f"train_proposals_{i}")
        assert torch.equal(recoded(rpn.matcher(anchors, boxes)), original(recording, f"rpn_assigned_gt_{i}").long())
        matches = heads.matcher(recorded[:, :4], boxes)
        assert torch.equal(recoded(matches), original(recording, f"roi_assigned_gt_{i}").long())
        proposals.append(Instances(sizes[i], proposal_boxes=Boxes(recorded[:, :4])))

    rpn.sampler, heads.sampler = Replay(original, recording, "rpn"), Replay(original, recording, "roi")
    inside = watch({"rpn": rpn.head, "logits": heads.classifier, "box": heads.box_head, "mask": heads.mask_head})
    own_proposals, losses = rpn(images, features, truth)
    for i in (0, 1):
        ours = torch.cat([own_proposals[i].proposal_boxes.tensor, own_proposals[i].scores[:, None]], dim=1)
        assert_same_set(ours, original(recording, f"train_proposals_{i}"))
    losses.update(heads(images, features, proposals, truth)[1])
    names = {
        "loss_rpn_cls": "loss_rpn_cls",
        "loss_rpn_loc": "loss_rpn_bbox",
        "loss_cls": "loss_cls",
        "loss_box_reg": "loss_bbox",
        "loss_mask": "loss_mask",
    }
    for name, loss in losses.items():
        torch.testing.assert_close(loss, original(recording, names[name]), atol=1e-5, rtol=1e-5)
    total = sum(losses.values())
    torch.testing.assert_close(total, original(recording, "loss_total"), atol=1e-5, rtol=1e-5)
    check_inside(original, recording, model, inside, proposals, truth)
    total.backward()
    check_gradients(original, recording, model)


def watch(modules):
    """A dict that fills with the output of each module's next pass."""
    seen = {}
    for name, module in modules.items():
        if module is not None:
            module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
    return seen


def check_inside(original, recording, model, inside, proposals, truth):
    """Everything that the losses were made of."""
    for i, (logits, deltas) in enumerate(zip(*inside["rpn"], strict=True)):
        file = f"{recording}_rpnmaps"
        close(logits, original(file, f"rpn_cls_{i}").permute(0, 2, 3, 1).flatten(1), 5e-5)
        close(deltas, original(file, f"rpn_reg_{i}").permute(0, 2, 3, 1).reshape(*logits.shape, 4), 5e-5)
    heads = model.roi_heads
    heads.sampler = Replay(original, recording, "roi")
    samples = [heads.sample(p.proposal_boxes.tensor, t) for p, t in zip(proposals, truth, strict=True)]
    for i, sample in enumerate(samples):
        close(sample.boxes, original(recording, f"roi_sampled_boxes_{i}"), 0)
        assert torch.equal(sample.matches, original(recording, f"roi_pos_gt_{i}"))
    labels, recorded_labels = torch.cat([sample.labels for sample in samples]), original(recording, "roi_labels")
    assert torch.equal(labels, recorded_labels)
    novel = torch.cat([heads.classes.novel, torch.tensor([False])])
    assert torch.equal(novel, original(recording, "neginf_mask"))
    weights = original("inputs", "class_weight")
    assert torch.equal(weights < 1e-5, novel) and weights[-1] == pytest.approx(heads.background_weight)
    positive = labels < len(heads.classes.novel)
    assert torch.equal(positive, original(recording, "roi_bbox_weights")[:, 0] > 0)
    targets = [
        heads.coder.encode(sample.boxes[: len(sample.matches)], one.gt_boxes.tensor[sample.matches])
        for sample, one in zip(samples, truth, strict=True)
    ]
    close(torch.cat(targets), original(recording, "roi_bbox_targets")[positive], 1e-5)
    close(inside["logits"], original(recording, "cls_logits"), 5e-4 * noise(recording))
    close(inside["box"][1], original(recording, "bbox_pred"), 5e-5)
    if "mask" in inside:
        close(inside["mask"][:, 0], original(recording, "mask_pred"), 1e-3)
        boxes = [sample.boxes[: len(sample.matches)] for sample in samples]
        masks = [mask_targets(t, s.matches, b, 28) for t, s, b in zip(truth, samples, boxes, strict=True)]
        recorded = unpack(original, recording, "mask_targets_packed", "mask_targets_shape")
        assert torch.equal(torch.cat(masks).bool(), recorded)


def check_gradients(original, recording, model):
    """Every recorded gradient norm, every recorded gradient in full, the running statistics after the step."""
    parameters, state = dict(model.named_parameters()), model.state_dict()
    keys = np.load(original.folder / f"{original.variant}_{recording}.npz")["grad_keys"]
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert trained == {original_to_ours(str(key)) for key in keys}
    norms = original(recording, "grad_norm_f64")
    for key, norm in zip(keys, norms.tolist(), strict=True):
        given = parameters[original_to_ours(str(key))].grad.double().norm().item()
        # A bias before batch statistics has no gradient at all but for rounding.
        assert given == pytest.approx(norm, rel=2e-3 * noise(recording), abs=1e-5), key
    for name in original.names(recording):
        kind, _, key = name.partition("/")
        if kind == "grad":
            gradient = original(recording, name)
            tolerance = 1e-2 * noise(recording) * gradient.abs().max().item() + 1e-5
            torch.testing.assert_close(parameters[original_to_ours(key)].grad, gradient, atol=tolerance, rtol=0)
        if kind == "bn_after":
            close(state[original_to_ours(key)], original(recording, name), 1e-4)


def noise(recording):
    """Batch statistics of two images enlarge rounding: a relative 2e-6 of the input moves the logits by up to 8e-4, a
    gradient's norm by up to 3.3e-3 and a single gradient by 1.2e-2 of the largest, whatever the order of summation."""
    return 2.0 if recording == "train_bnbatch" else 1.0


class Replay:
    """A sampler that takes the samples that MMDetection F-ViT took, image by image."""

    def __init__(self, original, recording, stage):
        self.draws = iter(
            [tuple(original(recording, f"{stage}_{kind}_inds_{i}") for kind in ("pos", "neg")) for i in (0, 1)]
        )

    def __call__(self, matches):
        return next(self.draws)


def recoded(matches):
    """Convert our matches to MMDetection's: -1 ignored, 0 negative, k the ground truth k - 1."""
    return torch.where(matches == IGNORED, -1, matches + 1)


def recorded_truth(original, recording, image, size):
    truth = Instances(
        size,
        gt_boxes=Boxes(original(recording, f"gt_boxes_{image}")),
        gt_classes=original(recording, f"gt_labels_{image}"),
    )
    if original.variant == "lvis":
        masks = unpack(original, recording, f"gt_masks_packed_{image}", f"gt_masks_shape_{image}")
        truth.gt_masks = BitMasks(masks)
    return truth


def unpack(original, file, packed, shape):
    shape = original(file, shape).tolist()
    bits = np.unpackbits(original(file, packed).numpy())[: int(np.prod(shape))]
    return torch.from_numpy(bits.reshape(shape).astype(bool))


def assert_same_set(ours, recorded):
    """Boxes with scores, (n, 5): the same ones, in an order that near ties may change."""
    assert ours.shape == recorded.shape
    for a, b in ((ours, recorded), (recorded, ours)):
        assert torch.cdist(a.double(), b.double(), p=float("inf")).min(dim=1).values.max() < 1e-3
