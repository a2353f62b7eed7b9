import json

import numpy as np
import pytest

from denserc.structures import DataError
from denserc.visualization import plot_bars, plot_curves
from denserc.visualization.curves import read_metrics, smooth


def write(path, records, tail=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return path


def test_metrics_are_read_by_name_and_a_resumed_run_overwrites(tmp_path):
    records = [{"iteration": i, "loss_a": 1.0, "lr": 0.1} for i in (0, 20, 40)]
    records += [{"iteration": i, "loss_a": 2.0} for i in (40, 60)]
    scalars = read_metrics(write(tmp_path / "m.json", records, tail='{"iteration": 80, "lo'))
    iterations, values = scalars["loss_a"]
    assert iterations.tolist() == [0, 20, 40, 60] and values.tolist() == [1.0, 1.0, 2.0, 2.0]
    assert scalars["lr"][0].tolist() == [0, 20, 40]


def test_smoothing_keeps_a_constant_and_the_length():
    np.testing.assert_allclose(smooth(np.full(20, 3.0), 9), 3.0)
    assert smooth(np.arange(4.0), 9).shape == (4,)
    ramp = smooth(np.arange(50.0), 5)
    np.testing.assert_allclose(ramp[2:-2], np.arange(2.0, 48.0))


def test_every_loss_gets_a_panel_and_every_run_a_line(tmp_path):
    records = [{"iteration": i, "loss_a": 1 / (i + 1), "loss_b": 0.5, "lr": 0.1} for i in range(30)]
    runs = {"one": write(tmp_path / "1.json", records), "two": write(tmp_path / "2.json", records[:20])}
    two_panels, one_panel = plot_curves(runs), plot_curves(runs, ["lr"])
    assert two_panels.dtype == np.uint8 and two_panels.shape[1] > 1.5 * one_panel.shape[1]
    assert len(np.unique(two_panels.reshape(-1, 3), axis=0)) > 20


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(DataError, match="OUTPUT_DIR"):
        read_metrics(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"iteration": 0}\nnot json\n{"iteration": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        read_metrics(broken)
    with pytest.raises(DataError, match="No scalar"):
        plot_curves({"run": write(tmp_path / "m.json", [{"iteration": 0, "lr": 1.0}])})


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
