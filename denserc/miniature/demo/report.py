"""The demo's table and report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...visualization import (
    Column,
    Listing,
    Picture,
    ResultTable,
    RunStatistics,
    Section,
    Settings,
    Words,
    plot_curves,
    write_report,
)
from .stages import CONTENDERS, Places

COLUMNS = (
    Column("boxes", title="Boxes"),
    Column("things", title="Thing"),
    Column("stuff", title="Stuff"),
    Column("novel", title="Novel"),
    Column("base", title="Base"),
    Column("all", title="All"),
    Column("transfer", title="Transfer"),
)
NOTE = (
    "Boxes, thing and stuff masks: region classification, top-1 mean accuracy (percent, 73 classes). Novel, base, all: "
    "open-vocabulary detection, AP50, 17 + 48 classes, generalised. Transfer: AP on the second domain by its own names."
)

Results = Mapping[int, Mapping[str, dict]]  # seed -> contender's key -> results of both stages


def summary(results: Results) -> ResultTable:
    """One row a contender, mean and deviation over the seeds."""
    rows = {}
    for contender in CONTENDERS:
        runs = [_numbers(of_seed[contender.key]) for of_seed in results.values()]
        rows[contender.title] = {name: RunStatistics.of(run[name] for run in runs) for name in runs[0]}
    crops = next(iter(results.values()))["clip"]["regions"]["thing_crops_top1"]
    ceiling = f" The teacher's class token on the crops of the same boxes: {crops:.1f}."
    seeds = f" Mean ± deviation over the seeds {', '.join(map(str, results))}." if len(results) > 1 else ""
    return ResultTable(COLUMNS, rows, corner="encoder", note=NOTE + ceiling + seeds)


def _numbers(result: dict) -> dict[str, float]:
    regions, detection, transfer = result["regions"], result["detection"], result["transfer"]
    return {
        "boxes": regions["boxes_top1"],
        "things": regions["thing_masks_top1"],
        "stuff": regions["stuff_masks_top1"],
        "novel": detection["AP50_novel"],
        "base": detection["AP50_base"],
        "all": detection["AP50_all"],
        "transfer": transfer["AP_all"],
    }


def write_demo_report(
    path: Path,
    table: ResultTable,
    places: Places,
    seed: int,
    *,
    comparison: np.ndarray,
    asked: np.ndarray,
    names: Sequence[str],
    features: Sequence[np.ndarray],
    settings: Mapping[str, object],
) -> None:
    """The HTML page with everything."""
    distilled = [contender for contender in CONTENDERS if contender.config]
    losses = plot_curves(
        {c.title: places.folder(seed, c, "encoder") / "metrics.json" for c in distilled},
        ["loss_semantics", "loss_coherence"],
    )
    training = plot_curves(
        {c.title: places.folder(seed, c, "detector") / "metrics.json" for c in CONTENDERS},
        ["total_loss", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"],
    )
    colours = "Novel classes are red, base classes blue; the detector was trained on boxes of base classes alone."
    sections = [
        Section("Results", [table]),
        Section("Detections on fresh scenes", [Picture(comparison, colours)]),
        Section(
            "Detections of names from the command line",
            [Listing(", ".join(names)), Picture(asked, f"DenseRC's detector asked for these names only. {colours}")],
        ),
        Section(
            "Dense features before and after",
            [
                Words(
                    "Cosine of every patch to the marked one, then the first three principal components as colours, "
                    "for the undistilled CLIP and for both distilled encoders."
                ),
                *(
                    Picture(p, "Similarity to the marked patch" if i % 2 == 0 else "Principal components")
                    for i, p in enumerate(features)
                ),
            ],
        ),
        Section("Distillation", [Picture(losses, "Losses of the distillation; CLIPSelf has no coherence term.")]),
        Section("Detector training", [Picture(training, "Losses of the three detectors.")]),
        Section("Settings", [Settings(settings)]),
    ]
    lead = (
        "A CLIP trained on captions of a small drawn world, its dense features reconstructed by distillation, and "
        "open-vocabulary detectors trained on top of the frozen encoders."
    )
    write_report(path, sections, title="DenseRC demo", lead=lead)
