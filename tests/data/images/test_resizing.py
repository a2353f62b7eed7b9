"""Squares: the same pixels as by direct resizing, also for very narrow images."""

import numpy as np
import pytest
from PIL import Image

from denserc.data.images.resizing import (
    BicubicKernel,
    centered_square,
    corner_square,
    resize,
    resize_all,
    resize_longest,
)

BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture()
def picture():
    """make(w, h) -> noise."""
    rng = np.random.default_rng(0)
    return lambda w, h: Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "resized"), [((80, 40), (64, 32)), ((33, 47), (45, 64)), ((64, 21), (64, 21))])
def test_the_longest_side_fits_and_the_rest_is_black(picture, size, resized):
    image = picture(*size)
    content = np.asarray(image.resize(resized, BICUBIC))
    width, height = resized
    corner, centered = corner_square(image, 64), centered_square(image, 64)
    top, left = (64 - height) // 2, (64 - width) // 2  # floors, as open_clip's ResizeMaxSize in CLIPSelf
    for square, y, x in ((corner, 0, 0), (centered, top, left)):
        assert square.shape == (64, 64, 3) and square.dtype == np.uint8
        assert np.array_equal(square[y : y + height, x : x + width], content)
        assert square.sum(dtype=int) == content.sum(dtype=int)


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1)])
def test_no_image_is_too_narrow(picture, size):
    assert min(resize_longest(picture(*size), 64).shape[:2]) == (64 if size == (1, 1) else 1)
    assert centered_square(picture(*size), 64).any() and corner_square(picture(*size), 64).any()


def test_an_image_of_the_right_size_is_not_resampled(picture):
    image = picture(64, 20)
    assert np.array_equal(resize_longest(image, 64), np.asarray(image))


@pytest.mark.parametrize("size", [(1024, 768), (100, 60), (224, 224), (1, 7)])
def test_the_fast_resampling_is_within_two_levels_of_pillows(picture, size):
    """Noise is the worst case: a photograph's values differ seldom, these in a few of a hundred."""
    for image in (picture(107, 80), picture(640, 480), picture(1, 1), picture(300, 3)):
        exact, fast = resize(image, size), resize(np.asarray(image), size, BicubicKernel.TORCHVISION)
        difference = np.abs(exact.astype(int) - fast)
        assert exact.shape == fast.shape == (*size, 3) and difference.max() <= 2
        assert (difference > 1).mean() < 1e-3 and (difference > 0).mean() < 0.1


@pytest.mark.parametrize("resampling", BicubicKernel)
def test_rows_stay_rows_in_memory(picture, resampling):
    """Planes instead would be three times as slow to put anywhere."""
    for image in (picture(50, 31), picture(31, 50)):
        assert resize(image, (40, 60), resampling).flags.c_contiguous


@pytest.mark.parametrize("size", [(20, 60), (60, 20), (300, 40), (90, 200)])
def test_columns_are_resized_before_rows_in_any_pillow_version(picture, size):
    """Pillow 13 turns the order round where much height is lost; between the passes it rounds, so that shows."""
    image = picture(37, 250)
    rows_last = image.resize((size[1], 250), BICUBIC).resize(size[::-1], BICUBIC)
    assert np.array_equal(resize(image, size), np.asarray(rows_last))


def test_arrays_and_pictures_are_one(picture):
    image = picture(50, 31)
    for resampling in BicubicKernel:
        for square in (corner_square, centered_square):
            assert np.array_equal(square(image, 64, resampling), square(np.asarray(image), 64, resampling))
    part = np.asarray(image)[3:20, 7:40]  # a crop is not contiguous in memory
    for resampling in BicubicKernel:
        assert np.array_equal(resize(part, (9, 8), resampling), resize(part.copy(), (9, 8), resampling))


@pytest.mark.parametrize("resampling", BicubicKernel)
def test_several_at_once_are_each_alone(picture, resampling):
    images = [np.asarray(picture(*size)) for size in ((30, 20), (31, 20), (30, 20), (20, 30), (1, 9))]
    for given, image in zip(resize_all(images, (16, 24), resampling), images, strict=True):
        assert np.array_equal(given, resize(image, (16, 24), resampling))
