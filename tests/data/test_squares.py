"""Squares: the same pixels as the direct way, and no image too narrow."""

import numpy as np
import pytest
from PIL import Image

from denserc.data.squares import centred_square, corner_square, resize_longest

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
    corner, centred = corner_square(image, 64), centred_square(image, 64)
    top, left = (64 - height) // 2, (64 - width) // 2  # floors, as open_clip's ResizeMaxSize in CLIPSelf
    for square, y, x in ((corner, 0, 0), (centred, top, left)):
        assert square.shape == (64, 64, 3) and square.dtype == np.uint8
        assert np.array_equal(square[y : y + height, x : x + width], content)
        assert square.sum(dtype=int) == content.sum(dtype=int)


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1)])
def test_no_image_is_too_narrow(picture, size):
    assert min(resize_longest(picture(*size), 64).size) == (64 if size == (1, 1) else 1)
    assert centred_square(picture(*size), 64).any() and corner_square(picture(*size), 64).any()


def test_an_image_of_the_right_size_is_not_resampled(picture):
    image = picture(64, 20)
    assert resize_longest(image, 64) is image
