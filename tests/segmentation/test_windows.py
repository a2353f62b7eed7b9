"""Sliding windows: places, coverage, averages."""

import pytest
import torch

from denserc.segmentation.modeling.options import WholePicture
from denserc.segmentation.modeling.windows import SlidingWindows, Whole
from denserc.structures import ConfigurationError


def test_the_published_windows():
    size, places = SlidingWindows(side=384, overlap=0.333, canvas=(640, 640)).places((640, 640))
    assert size == (384, 384) and places == [(0, 0), (0, 256), (256, 0), (256, 256)]


@pytest.mark.parametrize("canvas", [(7, 9), (8, 8), (20, 5), (23, 17)])
def test_windows_cover_every_pixel(canvas):
    views = SlidingWindows(side=8, overlap=0.4, canvas=None)
    (a, b), places = views.places(canvas)
    count = torch.zeros(canvas)
    for row, column in places:
        assert row + a <= canvas[0] and column + b <= canvas[1]
        count[row : row + a, column : column + b] += 1
    assert (count > 0).all()
    image = torch.rand(3, *canvas)
    assert [tuple(one.shape) for one in views.cut(image)] == [(3, a, b)] * (len(places) + 1)


def test_equal_logits_give_their_probability():
    views = SlidingWindows(side=8, overlap=0.4, canvas=None)
    count = len(views.places((23, 17))[1]) + 1
    merged = views.merge(torch.full((count, 2, 4, 4), 0.7), (23, 17), (31, 40))
    torch.testing.assert_close(merged, torch.tensor(0.7).sigmoid().expand(2, 31, 40))


def test_a_whole_picture_is_padded_only_by_name():
    image = torch.rand(3, 40, 33)
    assert Whole(WholePicture.EXACT).cut(image)[0].shape == (3, 40, 33)
    padded = Whole(WholePicture.PADDED).cut(image)[0]
    assert padded.shape == (3, 64, 64) and not padded[:, 40:].any() and torch.equal(padded[:, :40, :33], image)


def test_impossible_windows_are_refused():
    for options in ({"side": 0, "overlap": 0.3}, {"side": 8, "overlap": 1.0}, {"side": 8, "overlap": -0.1}):
        with pytest.raises(ConfigurationError, match="windows"):
            SlidingWindows(**options, canvas=None)
