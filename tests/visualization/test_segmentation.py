"""Label maps drawn on pictures."""

import numpy as np
import pytest

from denserc.structures import DataError
from denserc.visualization import class_colors, draw_labels, draw_legend, segmentation_page


def test_colors_are_distinct_and_do_not_depend_on_the_count():
    colors = class_colors(171)
    assert colors.shape == (171, 3) and colors.dtype == np.uint8
    assert len({tuple(color) for color in colors.tolist()}) == 171
    assert (class_colors(20) == colors[:20]).all() and class_colors(0).shape == (0, 3)


def test_tint_of_labels_leaves_other_pixels():
    picture = np.full((2, 2, 3), 100, np.uint8)
    labels = np.array([[0, 1], [255, -1]])
    colors = np.array([[200, 100, 0], [0, 0, 0]], np.uint8)
    drawn = draw_labels(picture, labels, colors, opacity=0.5)
    assert drawn[0].tolist() == [[150, 100, 50], [50, 50, 50]] and (drawn[1] == 100).all()
    assert (picture == 100).all()
    with pytest.raises(DataError, match="label map is .1, 2."):
        draw_labels(picture, labels[:1], colors)


def test_legend_marks_novel_names_in_red():
    legend = draw_legend(["sky", "tree"], class_colors(2), [False, True], width=300)
    assert legend.shape[1] == 300
    red = (legend[..., 0].astype(int) - legend[..., 1] > 120) & (legend[..., 2] < 90)
    assert red.any()
    plain = draw_legend(["sky", "tree"], np.zeros((2, 3), np.uint8), [False, False], width=300)
    assert (plain[..., 0] == plain[..., 1]).all()


def test_page_has_a_column_per_map_and_one_for_the_picture():
    pictures = [np.zeros((40, 60, 3), np.uint8)] * 2
    maps = [np.zeros((40, 60), np.int64), np.full((40, 60), 255)]
    one = segmentation_page(pictures, {"a": maps}, ["sky"], min_side=40)
    two = segmentation_page(pictures, {"a": maps, "b": maps}, ["sky"], novel=["sky"], min_side=40)
    assert two.shape[1] > one.shape[1] and one.dtype == np.uint8
    segmentation_page(pictures, {"a": [maps[1]] * 2}, ["sky"], min_side=40)  # nothing to name in the legend
