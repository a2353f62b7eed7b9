"""The views of an image are CLIPSelf's, pixel for pixel."""

import random

import numpy as np
import pytest
import torch

from denserc.data.images.resizing import BicubicKernel
from denserc.distillation.data.batch import DistillationBatch, DistillationSample
from denserc.distillation.data.crops import (
    CropResize,
    CropTransform,
    content_extent,
    padded_square,
    to_padded_square,
)
from denserc.distillation.data.regions import GridRegions, GridRule, ImageRecord, grid_boxes
from denserc.distillation.distiller import normalized
from denserc.structures import CLIP_PIXELS, ConfigurationError


@pytest.mark.parametrize("case", ["grid0", "grid1"])
def test_views_equal_clipselfs(recordings, case):
    recorded = recordings("clipself_preprocess")
    image = recorded["image_u8"]
    regions = GridRegions(max_split=6, rule=GridRule.CLIPSELF, max_regions=8)
    boxes = regions.sample(ImageRecord("", 0), random.Random(int(recorded[f"{case}_pyseed"])))

    student = normalized(padded_square(image, 128), CLIP_PIXELS)
    torch.testing.assert_close(student, torch.from_numpy(recorded[f"{case}_image"]), atol=1e-6, rtol=0)

    expected = torch.from_numpy(recorded[f"{case}_boxes"])
    assert (expected[:, 4] == 1).all()
    padded = to_padded_square(boxes, content_extent(image))
    torch.testing.assert_close(padded, expected[:, :4], atol=1e-6, rtol=0)

    scale = float(recorded[f"{case}_crop_scale"])
    crops = CropTransform(size=64, resize=CropResize.LETTERBOX, scale=scale)(image, boxes)
    expected = torch.from_numpy(recorded[f"{case}_crops"])
    torch.testing.assert_close(normalized(crops, CLIP_PIXELS), expected, atol=1e-6, rtol=0)


def test_square_crops_fill_the_square():
    image = np.full((30, 60, 3), (200, 100, 50), np.uint8)
    crops = CropTransform(size=16, resize=CropResize.SQUARE)(image, torch.tensor([[0.0, 0.0, 1.0, 0.5]]))
    assert crops.shape == (1, 3, 16, 16) and crops.dtype == torch.uint8
    assert (crops[0].flatten(1).T == torch.tensor([200, 100, 50], dtype=torch.uint8)).all()


@pytest.mark.parametrize("crop", CropResize)
def test_the_fast_resampling_shows_the_same_views(recordings, crop):
    """Views agree within two of 255 levels, and most values are identical."""
    image = recordings("clipself_preprocess")["image_u8"]
    boxes = GridRegions(max_split=6).sample(ImageRecord("", 0), random.Random(0))
    exact, fast = (
        [padded_square(image, 128, way), CropTransform(size=64, resize=crop, resampling=way)(image, boxes)]
        for way in BicubicKernel
    )
    for one, two in zip(exact, fast, strict=True):
        difference = (one.int() - two.int()).abs()
        assert difference.max() <= 2 and (difference > 0).float().mean() < 0.1


@pytest.mark.parametrize("resampling", BicubicKernel)
def test_views_keep_the_rows_of_the_image_in_memory(recordings, resampling):
    image = recordings("clipself_preprocess")["image_u8"]
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.2, 0.1, 0.7, 0.9]])
    square, crops = padded_square(image, 64, resampling), CropTransform(size=32, resampling=resampling)(image, boxes)
    batch = DistillationBatch.collate([DistillationSample(square, None, crops, boxes, (1.0, 1.0))] * 2)
    for views in (batch.images, batch.crops):
        assert views.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.images[1], square) and torch.equal(batch.crops[2:], crops)


@pytest.mark.parametrize(("size", "extent"), [((80, 40), (0.5, 1.0)), ((30, 60), (1.0, 0.5)), ((50, 50), (1.0, 1.0))])
def test_padding_is_black_right_and_below(size, extent):
    image = np.full((*size[::-1], 3), 255, np.uint8)
    assert content_extent(image) == extent
    square = padded_square(image, 32)
    height, width = round(32 * extent[0]), round(32 * extent[1])
    assert (square[:, :height, :width] == 255).all()
    assert square.float().sum() == 255 * 3 * height * width


def test_a_region_below_one_pixel_shows_its_pixel():
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    box = torch.tensor([[0.99, 0.99, 1.0, 1.0]])
    crop = CropTransform(size=4)(pixels, box)
    assert crop.unique().tolist() == pixels[2, 2].tolist()


def test_half_pixel_edges_are_cut_as_in_pillow():
    """CLIPSelf multiplies in single precision and lets Pillow round: 333 / 6 = 55.5, 166.5, 277.5."""
    boxes = grid_boxes(6, 6)
    pixels = boxes * torch.tensor([333, 427, 333, 427])
    expected = [list(map(round, box)) for box in pixels.tolist()]
    assert CropTransform(size=8).windows((427, 333), boxes).tolist() == expected
    assert expected[0] == [0, 0, 56, 71] and expected[2][2] == 166


def test_meaningless_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="size=0"):
        CropTransform(size=0)
