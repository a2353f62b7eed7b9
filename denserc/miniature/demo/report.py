"""The demo's table and report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

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
from ..world import Domain
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
SEGMENTATION_COLUMNS = (
    Column("seen", title="Seen"),
    Column("unseen", title="Unseen"),
    Column("transfer", title="Transfer"),
    Column("training_free", title="Training-free"),
    Column("training_free_unseen", title="Training-free, unseen"),
)
NOTE = (
    "Boxes, thing and stuff masks: region classification, top-1 mean accuracy (percent, 73 classes). Novel, base, all: "
    "open-vocabulary detection, AP50, 17 + 48 classes, generalized. Transfer: AP on the second domain by its own names."
)
SEGMENTATION_NOTE = (
    "mIoU of CAT-Seg on 54 seen and 19 unseen classes, and on all 73 of the second domain by its own names. "
    "Training-free: mIoU of only the dense features on all 73 classes of the first domain, and on the 19."
)

Results = Mapping[int, Mapping[str, dict]]  # seed -> key of what is compared -> results of its stages


class Compared(Protocol):
    """A row of a comparison."""

    @property
    def key(self) -> str:
        """Key of its results."""

    @property
    def title(self) -> str:
        """Title of its row."""


def summary(results: Results) -> ResultTable:
    """One row per contender: mean and deviation over the seeds."""
    crops = next(iter(results.values()))["clip"]["regions"]["thing_crops_top1"]
    ceiling = f" The teacher's class token on the crops of the same boxes: {crops:.1f}."
    return ResultTable(
        COLUMNS, seed_rows(results, CONTENDERS, _numbers), corner="encoder", note=NOTE + ceiling + seeds_note(results)
    )


def segmentation_summary(results: Results) -> ResultTable:
    """The same for segmentation."""
    rows = seed_rows(results, CONTENDERS, _segmentation_numbers)
    return ResultTable(SEGMENTATION_COLUMNS, rows, corner="encoder", note=SEGMENTATION_NOTE + seeds_note(results))


def seed_rows(
    results: Results, shown: Sequence[Compared], numbers: Callable[[dict], dict[str, float]]
) -> dict[str, dict[str, RunStatistics]]:
    """Mean and deviation over the seeds, by title of what is compared.

    Args:
        results: Results by seed and key.
        shown: Rows in order.
        numbers: Function from the results of a run to the values of its row.
    """
    rows = {}
    for one in shown:
        runs = [numbers(of_seed[one.key]) for of_seed in results.values()]
        rows[one.title] = {name: RunStatistics.of(run[name] for run in runs) for name in runs[0]}
    return rows


def seeds_note(results: Results) -> str:
    """Sentence about the seeds of a table; "" for a single one."""
    return f" Mean ± deviation over the seeds {', '.join(map(str, results))}." if len(results) > 1 else ""


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


def _segmentation_numbers(result: dict) -> dict[str, float]:
    return {
        "seen": result["segmentation"]["mIoU_seen"],
        "unseen": result["segmentation"]["mIoU_unseen"],
        "transfer": result["segmentation_transfer"]["mIoU"],
        "training_free": result["dense_segmentation"]["mIoU"],
        "training_free_unseen": result["dense_segmentation"]["mIoU_unseen"],
    }


def write_demo_report(
    path: Path,
    tables: Sequence[ResultTable],
    places: Places,
    seed: int,
    *,
    comparison: np.ndarray,
    asked: np.ndarray,
    segmented: Mapping[Domain, np.ndarray],
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
    segmenters = plot_curves(
        {c.title: places.folder(seed, c, "segmenter") / "metrics.json" for c in CONTENDERS}, ["total_loss"]
    )
    colors = "Novel classes are red, base classes blue; the detector was trained only on boxes of base classes."
    sections = [
        Section("Results", tables),
        Section("Detections on fresh scenes", [Picture(comparison, colors)]),
        Section(
            "Detections of names from the command line",
            [Listing(", ".join(names)), Picture(asked, f"DenseRC's detector asked for these names only. {colors}")],
        ),
        Section(
            "Segmentation of fresh scenes",
            [
                Picture(segmented[Domain.MAIN], "CAT-Seg over each encoder. Its training has not seen red names."),
                Picture(
                    segmented[Domain.TRANSFER],
                    "The second domain by its own names, none of which training has seen. Red ones are the names of "
                    "classes that it has not seen in the first domain either.",
                ),
            ],
        ),
        Section(
            "Dense features before and after",
            [
                Words(
                    "Cosine of every patch to the marked one, then the first three principal components as colors, "
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
        Section("Segmenter training", [Picture(segmenters, "Losses of CAT-Seg over the three encoders.")]),
        Section("Settings", [Settings(settings)]),
    ]
    lead = (
        "A CLIP trained on captions of a small drawn world, its dense features reconstructed by distillation, and "
        "open-vocabulary detectors and segmenters trained on top of the encoders."
    )
    write_report(path, sections, title="DenseRC demo", lead=lead)
