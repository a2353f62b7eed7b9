import numpy as np
import pytest

from denserc.structures import DataError
from denserc.visualization.canvas import LabelPlacer, check_picture, enlarge, fitted, font, grid_of_pictures, overlap


def test_enlarging_is_by_an_integer_factor_for_small_pictures():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (128, 200, 3), dtype=np.uint8)
    large, factor = enlarge(picture, 384)
    assert factor == 3 and large.shape == (384, 600, 3)
    same, factor = enlarge(large, 384)
    assert factor == 1
    np.testing.assert_array_equal(same, large)


@pytest.mark.parametrize("seed", range(5))
def test_labels_stay_inside_and_apart_where_there_is_room(seed):
    rng = np.random.default_rng(seed)
    placer = LabelPlacer((400, 600))
    for _ in range(8):
        x, y = rng.uniform(-20, 580), rng.uniform(-20, 380)
        placer.place((x, y, x + rng.uniform(5, 100), y + rng.uniform(5, 100)), (18, 90))
    for i, place in enumerate(placer.taken):
        assert 0 <= place[0] and 0 <= place[1] and place[2] <= 600 and place[3] <= 400
        assert all(overlap(place, other) < 0.35 * 18 * 90 for other in placer.taken[:i])


def test_two_labels_of_one_box_do_not_overlap():
    placer = LabelPlacer((300, 300))
    places = [placer.place((100, 100, 180, 180), (16, 80)) for _ in range(4)]
    assert sum(overlap(a, b) for i, a in enumerate(places) for b in places[:i]) == 0


def test_long_titles_are_shortened():
    text = font(16)
    short = fitted("a very long name of an encoder", text, 80)
    assert text.getlength(short) <= 80 and short.endswith("…")
    assert fitted("name", text, 80) == "name"


def test_a_grid_holds_every_picture_unchanged():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 200, (50, 40 + 10 * c, 3), dtype=np.uint8) for c in range(3)] for _ in range(2)]
    sheet = grid_of_pictures(rows, column_titles=["a", "b", "c"], row_titles=["one", "two"], gap=6)
    for row in rows:
        for picture in row:
            h, w = picture.shape[:2]
            windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (h, w))
            assert (windows == picture[..., 0]).all(axis=(2, 3)).any()


def test_what_is_no_picture_is_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(DataError, match="uint8"):
            check_picture(wrong)
    with pytest.raises(DataError, match="at least one"):
        grid_of_pictures([])
