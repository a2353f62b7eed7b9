"""Tables of the measured ablations beside the paper's figures, and the pairs of rows that are ordered differently.

A measure has a key: "boxes_top1" for region classification, "<downstream>/<data set>/<metric>" for the others.
"""

import itertools
from collections.abc import Mapping, Sequence

from ..visualization import Column, ResultTable, RunStatistics
from .ablation_tables import DATASET_TITLES, DOWNSTREAM_TITLES, METRIC_TITLES, REGIONS, Ablation

Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""Row -> one dict of measures per seed."""


def measure_title(key: str) -> str:
    """Column heading of a measure, e.g. "CAT-Seg A-150", "CAT-Seg unseen" or "F-ViT novel AP50".

    Data sets and metrics without a title keep their names.
    """
    if key in REGIONS:
        return REGIONS[key]
    downstream, dataset, metric = key.split("/")
    words = (
        DOWNSTREAM_TITLES.get(downstream, downstream),
        DATASET_TITLES.get(dataset, dataset),
        METRIC_TITLES.get(metric, metric),
    )
    return " ".join(word for word in words if word)


def measured(runs: Runs) -> list[str]:
    """Keys of the measures that every run of every row has, in the order of the first run."""
    every = [run for row in runs.values() for run in row]
    return [key for key in (every[0] if every else ()) if all(key in run for run in every)]


def tabulate(ablation: Ablation, runs: Runs) -> ResultTable:
    """Measured columns, as mean and deviation over the seeds, followed by the paper's columns."""
    keys = measured(runs)
    columns = [Column(key, title=measure_title(key)) for key in keys]
    columns += [Column(f"paper {name}", title=f"{name} (paper)") for name in ablation.measures]
    rows = {
        variant.title: {key: RunStatistics.of(run[key] for run in runs[variant.title]) for key in keys}
        | {f"paper {name}": value for name, value in variant.paper.items()}
        for variant in ablation.variants
    }
    return ResultTable(columns, rows, corner=ablation.title)


def disagreements(ablation: Ablation, runs: Runs) -> list[str]:
    """Compare the order of each pair of rows with the paper's.

    A column of the paper is compared with the first of its counterparts that was measured, and with none otherwise.
    Rows of one seed share their draws, so the difference is taken seed by seed.

    Returns:
        The number of agreeing pairs, then one sentence per pair that is ordered differently; [] without any pair.
    """
    found, pairs, agreeing = [], 0, 0
    keys = measured(runs)
    for paper, counterparts in ablation.measures.items():
        ours = next((key for key in counterparts if key in keys), None)
        if ours is None:
            continue
        for one, two in itertools.combinations(ablation.variants, 2):
            if one.paper[paper] == two.paper[paper]:
                continue
            worse, better = sorted((one, two), key=lambda v: v.paper[paper])
            pairs += 1
            paired = zip(runs[better.title], runs[worse.title], strict=True)
            difference = RunStatistics.of(b[ours] - w[ours] for b, w in paired)
            if difference.mean > 0:
                agreeing += 1
                continue
            spread = f" ± {difference.deviation:.1f}" if difference.runs > 1 else ""
            found.append(
                f"{paper}: the paper has {better.title!r} {better.paper[paper] - worse.paper[paper]:.1f} above "
                f"{worse.title!r}; here {measure_title(ours)} differs by {difference.mean:.1f}{spread}."
            )
    if not pairs:
        return []
    return [f"{agreeing} of {pairs} pairs of rows are ordered as in the paper.", *found]
