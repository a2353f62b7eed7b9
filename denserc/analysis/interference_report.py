"""Results of `denserc lab interference`: means, tables and the bar chart."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..visualization import Better, Column, ResultTable, plot_bars


def summarize(regions: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, float | dict]:
    """Means over regions; energies relative to that of the whole feature, so that constructions compare."""
    stacked = {key: torch.stack([region[key] for region in regions]).double() for key in regions[0]}
    mean = {key: values.mean(0) for key, values in stacked.items()}
    whole, on, off = mean["whole"], mean["on"], mean["off"]
    change = stacked["error_without_off"] - stacked["error"]  # paired, region by region
    results = {
        "whole_energy": whole,
        "on_share": on / whole,
        "off_share": off / whole,
        "class_token_share": mean["class_token"] / whole,
        "residual_share": mean["residual"] / whole,
        "off_to_on": off / on,
        "cross_share": 2 * mean["product"] / whole,
        "cross_cosine": mean["product"] / (on * off).sqrt(),  # NaN without an off-target part
        "diagonal_share": mean["diagonal"] / whole,
        "off_to_diagonal": off / mean["diagonal"],  # NaN without an off-target part
        "mass_off": mean["mass_off"],
        "mass_class_token": mean["mass_class_token"],
        **{key: mean[key] for key in mean if key.startswith("error")},
        "error_change_without_off": change.mean(),
        "error_change_standard_error": change.std() / len(change) ** 0.5 if len(change) > 1 else math.nan,
    }
    per_block = {"on": (mean["on_blocks"] / whole).tolist(), "off": (mean["off_blocks"] / whole).tolist()}
    return {key: float(value) for key, value in results.items()} | {"per_block": per_block}


def tables(constructions: Mapping[str, Mapping[str, float]]) -> dict[str, ResultTable]:
    """The printed tables by title."""
    neither = Better.NEITHER
    parts = [
        Column("mass_off", neither, 3, "S off"),
        Column("mass_class_token", neither, 3, "S class"),
        Column("on_share", neither, 3, "on"),
        Column("off_share", neither, 3, "off"),
        Column("residual_share", neither, 3, "residual"),
        Column("off_to_on", neither, 3, "off / on"),
        Column("diagonal_share", neither, 3, "Eq. 19"),
        Column("cross_share", neither, 3, "cross"),
        Column("cross_cosine", neither, 3, "cosine"),
    ]
    error = [
        Column("error", Better.LOWER, 3, "error"),
        Column("error_rest", neither, 3, "= rest"),
        Column("error_off", neither, 3, "+ off"),
        Column("error_cross", neither, 3, "+ cross"),
        Column("error_without_off", Better.LOWER, 3, "without off"),
        Column("error_change_without_off", neither, 3, "change"),
        Column("error_change_standard_error", neither, 3, "its s.e."),
        Column("error_pooled", Better.LOWER, 3, "pooled"),
    ]
    described = (
        (
            "Parts of the feature before the final norm (Eq. 17 and 19)",
            parts,
            "S: share of attention outside the region, and on the class token. Energies relative to the whole "
            "feature's; Eq. 19: off without products between patches; cross: 2<on, off>; cosine: <on, off> over the "
            "root of both energies.",
        ),
        (
            "Squared error against the teacher's class token of the crop, unit vectors (Eq. 18)",
            error,
            "error = rest + off + cross, of unit vectors: 2 (1 - cosine). without off: of the feature whose off-target "
            "part was taken out before the norm, and the change that this makes with its standard error over regions. "
            "pooled: of the region's mean feature.",
        ),
    )
    return {
        title: ResultTable(
            columns, {n: {c.name: m[c.name] for c in columns} for n, m in constructions.items()}, "construction", note
        )
        for title, columns, note in described
    }


def picture(constructions: Mapping[str, Mapping]) -> np.ndarray:
    """The bar chart: energies, Eq. 19 beside the exact term, the errors' terms, and the blocks'. (H, W, 3) uint8."""

    def series(names: Mapping[str, str]) -> dict[str, dict[str, float]]:
        return {title: {name: values[key] for name, values in constructions.items()} for title, key in names.items()}

    blocks = max(len(values["per_block"]["off"]) for values in constructions.values())
    last = {
        f"block -{back}": {
            name: values["per_block"]["off"][-back]
            for name, values in constructions.items()
            if len(values["per_block"]["off"]) >= back
        }
        for back in range(blocks, 0, -1)
    }
    return plot_bars(
        {
            "Energies before the final norm, the whole feature's being 1 (Eq. 17)": series(
                {
                    "on target": "on_share",
                    "off target": "off_share",
                    "their cross term": "cross_share",
                    "residual stream": "residual_share",
                }
            ),
            "Off-target energy: exact, and as Eq. 19 approximates it": series(
                {"exact": "off_share", "Eq. 19": "diagonal_share"}
            ),
            "Squared error against the teacher, and its terms (Eq. 18)": series(
                {"error": "error", "rest": "error_rest", "off target": "error_off", "cross term": "error_cross"}
            ),
            "Off-target energy block by block, the whole feature's being 1": last,
        }
    )
