"""Mask supervision follows the data: off where nothing has a mask, object by object where some have one."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.detection.data import RecordMapper, evaluation_augmentations, have_masks
from denserc.detection.modeling.options import Resampling
from denserc.detection.modeling.roi_heads import RegionSample
from tests.detection.squares import CLASSES, saved, train, write_squares


@pytest.fixture()
def some_segmented(tmp_path):
    """A data set in which image 0 has no mask, image 1 one of two, the others all."""
    root = tmp_path / "some"
    root.mkdir()
    file = write_squares(root, segmented=lambda image, label: image > 1 or (image == 1 and label == 0))
    register_open_vocab_dataset("squares_some", file, root, base=CLASSES[:2], novel=CLASSES[2:], training=True)
    yield "squares_some"
    DatasetCatalog.remove("squares_some")
    MetadataCatalog.remove("squares_some")


def test_data_without_masks_gives_a_detector_without_mask_head(config, caplog):
    cfg = config(MODEL__MASK_ON=True, SOLVER__MAX_ITER=1)
    train(cfg)
    assert "no object of DATASETS.TRAIN has a segmentation" in caplog.text
    assert not any("mask_head" in key for key in saved(cfg)["model"])


def test_with_some_masks_the_mask_head_learns(config, some_segmented, caplog):
    cfg = config(MODEL__MASK_ON=True, DATASETS__TRAIN=(some_segmented,), DATASETS__TEST=(), SOLVER__MAX_ITER=3)
    train(cfg)
    assert "segmentation" not in caplog.text
    assert any("mask_head" in key for key in saved(cfg)["model"])


def test_objects_without_a_mask_keep_their_boxes(some_segmented):
    records = DatasetCatalog.get(some_segmented)
    assert have_masks(records) and not have_masks(records[:1])
    augmentations = evaluation_augmentations(64, Resampling.OPENCV_BILINEAR)  # the images' own size
    mapper = RecordMapper(augmentations, training=True, mask_format="bitmask")
    found = [mapper(record)["instances"] for record in records[:3]]
    assert [one.gt_has_mask.tolist() for one in found] == [[False, False], [True, False], [True, True]]
    for one, record in zip(found, records, strict=False):
        boxes = np.array([annotation["bbox"] for annotation in record["annotations"]], dtype=np.float32)
        boxes[:, 2:] += boxes[:, :2]
        torch.testing.assert_close(one.gt_boxes.tensor, torch.from_numpy(boxes), atol=1.0, rtol=0)
        assert (one.gt_masks.tensor.flatten(1).any(dim=1) == one.gt_has_mask).all()


def test_the_mask_loss_is_that_of_the_objects_with_masks(tiny, make_inputs):
    heads = tiny(masks=True).train().roi_heads
    levels = [torch.rand(2, 16, 64 // s, 64 // s) for s in (2, 4, 8, 16)]
    with_all = [one["instances"] for one in make_inputs(((64, 64), (64, 64)), masks=True)]
    samples = [RegionSample(one.gt_boxes.tensor, one.gt_classes, torch.arange(3)) for one in with_all]
    for one in with_all:
        one.gt_has_mask = torch.ones(3, dtype=torch.bool)
    whole = heads.mask_loss(levels, samples, with_all)

    kept = [torch.tensor([True, False, True]), torch.tensor([False, False, False])]
    for one, keep in zip(with_all, kept, strict=True):
        one.gt_has_mask = keep
        bitmaps = one.gt_masks.tensor.clone()
        bitmaps[~keep] = False
        one.gt_masks = BitMasks(bitmaps)
    some = heads.mask_loss(levels, samples, with_all)
    alone = [RegionSample(s.boxes[k], s.labels[k], s.matches[k]) for s, k in zip(samples, kept, strict=True)]
    for one in with_all:
        one.remove("gt_has_mask")
    assert torch.equal(some, heads.mask_loss(levels, alone, with_all)) and some != whole

    for one in with_all:
        one.gt_has_mask = torch.zeros(3, dtype=torch.bool)
    none = heads.mask_loss(levels, samples, with_all)
    none.backward()  # through the head, so that processes agree on what has a gradient
    assert none == 0 and all(p.grad is not None and not p.grad.any() for p in heads.mask_head.parameters())
