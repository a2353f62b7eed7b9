import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from torch import nn

from denserc.data.datasets.panoptic import register_panoptic_regions
from denserc.evaluation import RegionLimits, evaluate_regions
from denserc.evaluation.regions import classification as module
from denserc.evaluation.regions.inputs import (
    box_of_mask,
    crop_square,
    fit_square,
    mask_cells,
    picture_of,
    to_input,
)
from denserc.evaluation.regions.pooling import AccuracyCounter, pool_boxes, pool_masks
from denserc.structures import (
    CLIP_PIXELS,
    ConfigurationError,
    DataError,
    FingerprintMismatchError,
    PixelStatistics,
    TextEmbeddings,
)
from denserc.structures.boxes import grow_boxes
from tests.paths import FIXTURES

PLAIN = PixelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NAMES = ("red ball", "green cube", "blue star", "dark sea", "pale sky", "grey road", "unused")
COLOURS = np.array(
    [[220, 20, 20], [20, 220, 20], [20, 20, 220], [20, 20, 80], [230, 230, 250], [120, 120, 120], [0, 0, 0]],
    dtype=np.uint8,
)
THINGS = (0, 1, 2)
TEXT = TextEmbeddings(names=NAMES[::-1], vectors=torch.eye(7).flip(0), fingerprint="mine")  # rows by name, not position


class Oracle(nn.Module):
    """Each cell's feature is the text embedding of the class whose color it shows."""

    def __init__(self, patch=4):
        super().__init__()
        self.patch = patch

    def forward(self, images):
        cells = nn.functional.avg_pool2d(images, self.patch)  # (B, 3, h, w)
        colors = torch.from_numpy(COLOURS).float() / 255
        distance = torch.cdist(cells.flatten(2).transpose(1, 2), colors[None])  # (B, N, C)
        nearest = distance.argmin(-1)
        b, _, h, w = cells.shape
        return 3.0 * torch.eye(7)[nearest].transpose(1, 2).reshape(b, 7, h, w)


def scene(seed, height=64, width=64):
    """Objects on two kinds of stuff, and its segments."""
    rng = np.random.default_rng(seed)
    ids = np.full((height, width), 3 + seed % 2)
    ids[: height // 2] = 5
    segments = []
    for k, label in enumerate(THINGS):
        x, y = 2 + 20 * k, int(rng.integers(2, height - 20))
        ids[y : y + 14, x : x + 14] = label
        segments.append({"label": label, "isthing": True, "bbox": (x, y, x + 14, y + 14), "mask": ids == label})
    for label in (3 + seed % 2, 5):
        segments.append({"label": label, "isthing": False, "bbox": (0, 0, 1, 1), "mask": ids == label})
    return {"image": COLOURS[ids], "segments": segments}


def evaluate(entries, encoder=None, **options):
    options = {"names": NAMES, "input_size": 64, "pixels": PLAIN, "progress": False, "mask_coverage": 0.5} | options
    return evaluate_regions(encoder or Oracle(), TEXT, entries, **options)


@pytest.mark.parametrize("size, input_size", [((64, 64), 64), ((64, 96), 96), ((80, 64), 160)])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_oracle_names_every_region(size, input_size, normalize):
    entries = [scene(seed, *size) for seed in range(4)]
    metrics = evaluate(entries, input_size=input_size, normalize=normalize, batch_size=3)["region_classification"]
    for kind in ("boxes", "thing_masks", "stuff_masks"):
        assert metrics[f"{kind}_top1"] == metrics[f"{kind}_top5"] == 100.0


def test_a_blind_encoder_is_right_by_chance_alone():
    class Blind(Oracle):
        def forward(self, images):
            return torch.zeros_like(super().forward(images)) + torch.eye(7)[0][None, :, None, None]

    metrics = evaluate([scene(0), scene(1)], Blind())["region_classification"]
    assert metrics["thing_masks_top1"] == pytest.approx(100 / 3)
    assert metrics["stuff_masks_top1"] == 0.0


def test_a_registered_panoptic_set_is_evaluated_by_its_name(tmp_path):
    entries = [scene(seed) for seed in range(3)]
    images, annotations = [], []
    for i, entry in enumerate(entries, start=1):
        Image.fromarray(entry["image"]).save(tmp_path / f"{i}.png")
        ids, described = np.zeros((64, 64, 3), np.uint8), []
        for k, segment in enumerate(entry["segments"], start=1):
            ids[segment["mask"], 0] = k
            x1, y1, x2, y2 = segment["bbox"]
            box = [x1, y1, x2 - x1, y2 - y1]
            described.append({"id": k, "category_id": 10 * segment["label"] + 4, "bbox": box, "iscrowd": 0, "area": 9})
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(ids).save(tmp_path / f"masks/{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 64})
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": described})
    categories = [{"id": 10 * k + 4, "name": name, "isthing": int(k in THINGS)} for k, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories[::-1]}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    register_panoptic_regions("generated_regions", tmp_path / "panoptic.json", [tmp_path / "masks"], tmp_path)
    try:
        metrics = evaluate("generated_regions", names=None)["region_classification"]
    finally:
        DatasetCatalog.remove("generated_regions")
        MetadataCatalog.remove("generated_regions")
    assert metrics == evaluate(entries)["region_classification"]
    assert metrics["boxes_top1"] == metrics["stuff_masks_top1"] == 100.0


def test_batches_and_iterators_do_not_change_the_result():
    entries = [scene(seed) for seed in range(5)]
    noisy = Oracle()
    torch.manual_seed(0)
    mixing = torch.randn(7, 7)
    noisy.register_forward_hook(lambda m, i, out: torch.einsum("ec,bchw->behw", mixing, out))
    first = evaluate(entries, noisy)["region_classification"]
    assert first == pytest.approx(evaluate(iter(entries), noisy, batch_size=4)["region_classification"], nan_ok=True)


def test_several_ranks_share_the_images_without_repeating_one(monkeypatch):
    entries = [scene(seed) for seed in range(5)]
    whole = evaluate(entries)["region_classification"]
    monkeypatch.setattr(module.comm, "get_world_size", lambda: 2)
    counted = []

    def gather(data, dst):
        counted.append(data)
        return counted

    monkeypatch.setattr(module.comm, "gather", gather)
    monkeypatch.setattr(module.comm, "all_gather", lambda data: [data])
    monkeypatch.setattr(module.comm, "get_rank", lambda: 1)
    monkeypatch.setattr(module.comm, "is_main_process", lambda: False)
    assert evaluate(entries) == {}
    monkeypatch.setattr(module.comm, "get_rank", lambda: 0)
    monkeypatch.setattr(module.comm, "is_main_process", lambda: True)
    assert evaluate(entries)["region_classification"] == whole
    assert int(counted[1][0]["boxes"].counts[..., 0].sum()) == 15  # rank 0 had images 0, 2, 4
    assert int(counted[0][0]["boxes"].counts[..., 0].sum()) == 25  # the first of the gathered takes up all others


def test_crops_are_classified_by_the_teacher():
    def teacher(crops):
        return Oracle()(crops).mean(dim=(2, 3))

    metrics = evaluate([scene(0)], crop_encoder=teacher, crop_size=32, thing_crop_scale=1.0)["region_classification"]
    assert metrics["thing_crops_top1"] == 100.0
    assert "stuff_crops_top5" in metrics


def test_limits_choose_by_the_box_in_original_pixels():
    entry = scene(0)
    assert len(RegionLimits().choose(entry["segments"])) == 5
    assert [r.label for r in RegionLimits(min_side=15).choose(entry["segments"])] == [3, 5]
    assert [r.label for r in RegionLimits(max_side=15).choose(entry["segments"])] == [0, 1, 2]
    assert [r.label for r in RegionLimits(max_segments=2).choose(entry["segments"])] == [0, 1]
    stuff = RegionLimits().choose(entry["segments"])[-1]
    assert stuff.box == box_of_mask(entry["segments"][-1]["mask"]) == (0.0, 0.0, 64.0, 32.0)


def test_nothing_found_is_not_a_number():
    metrics = evaluate([scene(0)], limits=RegionLimits(min_side=1000))["region_classification"]
    assert all(np.isnan(value) for value in metrics.values())


def test_the_encoder_returns_to_its_mode():
    encoder = Oracle().train()
    evaluate([scene(0)], encoder)
    assert encoder.training


def test_what_does_not_fit_is_refused():
    with pytest.raises(FingerprintMismatchError):
        evaluate([scene(0)], fingerprint="another")
    with pytest.raises(DataError, match="No text embedding"):
        evaluate([scene(0)], names=(*NAMES, "zebra"))
    with pytest.raises(DataError, match="Region labels"):
        evaluate([scene(0)], names=NAMES[:3])
    with pytest.raises(DataError, match="they must agree"):
        evaluate([scene(0) | {"image": np.zeros((32, 32, 3), np.uint8)}])
    with pytest.raises(ConfigurationError, match="pixels"):
        evaluate([scene(0)], pixels=None)
    with pytest.raises(ConfigurationError, match="names"):
        evaluate([scene(0)], names=None)
    with pytest.raises(DataError, match="uint8"):
        picture_of({"image": np.zeros((4, 4), np.uint8)})


@pytest.mark.parametrize("height, width, side, grid", [(64, 64, 64, 8), (30, 50, 96, 12), (123, 77, 64, 4)])
def test_mask_cells_share_is_exact(height, width, side, grid):
    rng = np.random.default_rng(0)
    masks = rng.random((3, height, width)) < 0.02
    scale = side / max(height, width)
    touched = mask_cells(masks, scale, side, (grid, grid), coverage=0.0)
    cell = side / grid
    expected = np.zeros((3, grid, grid), dtype=bool)
    for r, y, x in np.argwhere(masks):
        for i in range(grid):
            for j in range(grid):
                height_in = min((y + 1) * scale, (i + 1) * cell) - max(y * scale, i * cell)
                width_in = min((x + 1) * scale, (j + 1) * cell) - max(x * scale, j * cell)
                expected[r, i, j] |= height_in > 1e-5 and width_in > 1e-5
    np.testing.assert_array_equal(touched.numpy(), expected)
    full = mask_cells(np.ones((1, height, width), bool), scale, side, (grid, grid), coverage=0.99)
    assert full.sum() == int(height * scale / cell + 1e-6) * int(width * scale / cell + 1e-6)


def test_counter_averages_over_classes_that_have_regions():
    counter = AccuracyCounter(5)
    ranked = torch.tensor([[0, 1], [1, 0], [1, 0], [2, 3], [4, 3]])
    labels = torch.tensor([0, 0, 1, 3, 4])
    counter.add(ranked, labels, torch.tensor([True, True, True, False, False]))
    assert counter.accuracy(things=True) == pytest.approx((75.0, 100.0))
    assert counter.accuracy(things=False) == pytest.approx((50.0, 100.0))


def test_accuracy_equals_clipself():
    recorded = np.load(FIXTURES / "evaluation/clipself_macc.npz")
    counter = AccuracyCounter(133)
    counter.add(
        torch.from_numpy(recorded["top5"]),
        torch.from_numpy(recorded["labels"]),
        torch.from_numpy(recorded["is_thing"]) > 0,
    )
    for kind, things in (("thing", True), ("stuff", False)):
        expected = [100 * float(recorded[f"rois.{kind}.macc{k}"]) for k in (1, 5)]
        assert counter.accuracy(things=things) == pytest.approx(expected, abs=0.05)  # CLIPSelf rounds to half


def test_pooling_equals_clipself():
    recorded = np.load(FIXTURES / "evaluation/clipself_pooling.npz")
    for size, side in (("s", 64), ("l", 128)):
        features = torch.from_numpy(recorded[f"encode_dense_{size}"])
        masks = [torch.from_numpy(recorded[f"masks_{size}{i}"]) for i in (0, 1)]
        np.testing.assert_allclose(pool_masks(features, masks), recorded[f"mask_pool_raw_{size}"], atol=3e-6)
        for boxes, name in (("boxes", "pseudo_boxes_v2"), ("grid_boxes", "pseudo_boxes_grid")):
            pixels = [torch.from_numpy(recorded[f"{boxes}{i}"]) * side for i in (0, 1)]
            np.testing.assert_allclose(pool_boxes(features, pixels, side), recorded[f"{name}_{size}"], atol=3e-6)


def test_preprocessing_equals_clipself():
    recorded = np.load(FIXTURES / "distillation/clipself_preprocess.npz")
    image = picture_of({"image": recorded["image_u8"]})  # Pillow's versions differ by at most one gray level
    square, scale = fit_square(image, 128)
    assert scale == pytest.approx(128 / 131)
    np.testing.assert_allclose(to_input([square], CLIP_PIXELS, "cpu")[0], recorded["grid0_image"], atol=0.05)
    for grid in ("grid0", "grid1"):  # the second has a rest of 7 to pad, which halves round differently
        for box, crop in zip(recorded[f"{grid}_boxes"], recorded[f"{grid}_crops"], strict=True):
            if box[4] > 0.5:
                pixels = torch.tensor([[float(v) * 131 for v in box[:4]]], dtype=torch.float64)
                grown = grow_boxes(pixels, float(recorded[f"{grid}_crop_scale"]), (image.height, image.width))
                ours = crop_square(image, grown[0].tolist(), 64)
                np.testing.assert_allclose(to_input([ours], CLIP_PIXELS, "cpu")[0], crop, atol=0.05)


def test_what_the_encoder_caches_can_be_trained_with_afterwards():
    class Caching(Oracle):
        def forward(self, images):
            self.table = torch.ones(1) * 2
            return super().forward(images) * self.table

    encoder = Caching()
    evaluate([scene(0)], encoder)
    weight = torch.ones(1, requires_grad=True)
    (weight * encoder.table).sum().backward()
    assert weight.grad.item() == 2.0
