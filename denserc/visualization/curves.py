"""Training curves from Detectron2's metrics.json files, and bar charts."""

import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..structures import DataError

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")


def read_metrics(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every scalar of a metrics.json (one JSON object a line): name -> (iterations (T,), values (T,)).

    A run that was resumed wrote some iterations twice: the later line wins. A last line that was cut off by an
    interruption is left out.

    Raises:
        DataError: There is no such file, or a line in its middle is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; Detectron2 writes metrics.json into OUTPUT_DIR while it trains.")
    series: dict[str, dict[int, float]] = {}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number}, is not JSON: {line[:80]!r}") from error
        for name, value in record.items():
            if name != "iteration" and isinstance(value, int | float):
                series.setdefault(name, {})[record["iteration"]] = float(value)
    return {
        name: (np.array(sorted(points)), np.array([points[i] for i in sorted(points)]))
        for name, points in series.items()
    }


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centered window, shorter at the ends: a constant stays itself."""
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones(len(values)), kernel, mode="same")


def plot_curves(
    runs: Mapping[str, str | Path], names: Sequence[str] | None = None, *, columns: int = 3, window: int = 9
) -> np.ndarray:
    """One panel per scalar, one line per run.

    Args:
        runs: A run's name -> its metrics.json.
        names: Scalars to draw; by default all whose name holds "loss".
        columns: Maximum number of panels per row.
        window: Window of the smoothing, values; the values themselves stay visible, faint.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    series = {run: read_metrics(path) for run, path in runs.items()}
    if names is None:
        names = sorted({name for scalars in series.values() for name in scalars if "loss" in name})
    if not names:
        raise DataError(f"No scalar to draw in {list(map(str, runs.values()))}.")
    rows = math.ceil(len(names) / columns)
    columns = math.ceil(len(names) / rows)  # four panels make two rows of two, not three and one
    legend_height = 0.35 if len(runs) > 1 else 0.0
    # One panel is narrower than a legend of three names.
    width = max(3.6 * columns, sum(0.6 + 0.09 * len(run) for run in runs) if len(runs) > 1 else 0.0)
    figure = Figure(figsize=(width, 2.7 * rows + legend_height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        for index, (run, scalars) in enumerate(series.items()):
            if name in scalars:
                iterations, values = scalars[name]
                color = COLOURS[index % len(COLOURS)]
                panel.plot(iterations, values, color=color, alpha=0.25, linewidth=0.8)
                panel.plot(iterations, smooth(values, window), color=color, linewidth=1.6, label=run)
        panel.set_title(name, fontsize=10)
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.locator_params(nbins=5)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(names) - columns) : len(names)]:
        panel.set_xlabel("iteration", fontsize=9)
    if len(runs) > 1:
        lines = {line.get_label(): line for panel in panels for line in panel.get_lines() if line.get_label() in runs}
        figure.legend(lines.values(), lines, loc="outside upper center", ncols=len(runs), frameon=False, fontsize=9)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return np.array(Image.open(buffer).convert("RGB"))


Panel = Mapping[str, Mapping[str, float]]  # series -> {group: value}


def plot_bars(panels: Mapping[str, Panel], *, columns: int = 2) -> np.ndarray:
    """One panel per measurement: groups of bars side by side, one bar per series.

    Args:
        panels: Title -> series -> {group: value}; values may be negative, and what is not finite has no bar.
        columns: Maximum number of panels per row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: There is nothing to draw.
    """
    if not any(values for panel in panels.values() for values in panel.values()):
        raise DataError(f"There is no value to draw in the panels {list(panels)}.")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.4 * columns, 3.4 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        _draw(axis, title, panel)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return np.array(Image.open(buffer).convert("RGB"))


def _draw(axis, title: str, panel: Panel) -> None:
    groups = list(dict.fromkeys(group for values in panel.values() for group in values))
    width = 0.8 / max(1, len(panel))
    for number, (series, values) in enumerate(panel.items()):
        heights = [values.get(group, math.nan) for group in groups]
        places = [i + (number - (len(panel) - 1) / 2) * width for i in range(len(groups))]
        axis.bar(places, heights, width, label=series, color=COLOURS[number % len(COLOURS)])
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_xticks(range(len(groups)), groups, rotation=25, ha="right", fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.grid(axis="y", alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", labelsize=8)
    if len(panel) > 1:
        # Beside the bars, never over them.
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
