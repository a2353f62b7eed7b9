import numpy as np
import pytest

from denserc.structures import DataError
from denserc.visualization import plot_bars


def test_a_bar_for_every_value_also_negative_ones():
    one = plot_bars({"energy": {"on": {"a": 1.0, "b": 2.0}, "off": {"a": -0.5}}})
    assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3
    more = plot_bars({"energy": {"on": {"a": 1.0, "b": 2.0}, "off": {"a": -0.5, "b": -1.0}}})
    assert (one != more).any()


def test_panels_stand_side_by_side_then_below():
    panel = {"on": {"a": 1.0}}
    one, two, three = (plot_bars({f"p{i}": panel for i in range(n)}) for n in (1, 2, 3))
    assert two.shape[1] > one.shape[1] and two.shape[0] == one.shape[0] and three.shape[0] > two.shape[0]


def test_what_is_no_number_has_no_bar():
    plot_bars({"energy": {"on": {"a": float("nan"), "b": 1.0}}})


def test_nothing_to_draw_is_said():
    with pytest.raises(DataError, match="energy"):
        plot_bars({"energy": {"on": {}}})
