"""Tables and files of a detection evaluation."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ...structures.files import write_text
from ..scoring.average_precision import MEASURES, ClassScores


def group_table(scores: ClassScores, groups: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """{group: {measure: percent}}, NaN where a group has no class with ground truth."""
    return {
        group: {measure: scores.mean(measure, members) for measure in MEASURES} for group, members in groups.items()
    }


def console_table(rows: Mapping[str, Mapping[str, float]], groups: Mapping[str, np.ndarray]) -> str:
    """The groups' means as a Markdown table, with the number of classes of each."""
    body = [
        [group, int(groups[group].sum()), *(measures[measure] for measure in MEASURES)]
        for group, measures in rows.items()
    ]
    return tabulate(body, headers=["group", "classes", *MEASURES], tablefmt="pipe", floatfmt=".2f")


def class_table(
    scores: ClassScores, names: Sequence[str], groups: Sequence[str], protocol: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per class; a measure that cannot be computed is an empty cell.

    Args:
        protocol: Columns that every row repeats, so that a row names its rules.
    """
    table = []
    for label, (name, group) in enumerate(zip(names, groups, strict=True)):
        row = {
            "class": name,
            "group": group,
            "category_id": scores.category_ids[label],
            "instances": int(scores.instances[label]),
            "detections": int(scores.detections[label]),
        }
        for measure, value in zip(MEASURES, scores.measures[label], strict=True):
            row[measure] = "" if math.isnan(value) else f"{value:.4f}"
        table.append({**row, **protocol})
    return table


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys, a header line first; written whole or not at all."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())
