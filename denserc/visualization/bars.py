"""Grouped bar charts of measurements."""

import math
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..structures import DataError
from .curves import COLOURS

Panel = Mapping[str, Mapping[str, float]]  # series -> {group: value}


def plot_bars(panels: Mapping[str, Panel], *, columns: int = 2) -> np.ndarray:
    """One panel a measurement: groups of bars side by side, one bar a series.

    Args:
        panels: title -> series -> {group: value}; values may be negative, and what is not finite has no bar.
        columns: at most so many panels a row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: there is nothing to draw.
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
