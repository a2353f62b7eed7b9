"""Report of a region classification: metrics, the table of classes, and the protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...structures.files import write_json
from ..detection.report import write_csv
from .pooling import AccuracyCounter

TASK = "region_classification"


@dataclass(frozen=True)
class RegionReport:
    """The counts of one evaluation.

    Args:
        names: C class names.
        counters: "boxes", "masks" and perhaps "crops" -> what was counted.
        protocol: Settings: input size, pooled map, templates, numbers of images and classes, ...
        is_thing: C, True for things; None if only the regions distinguish them.
    """

    names: Sequence[str]
    counters: Mapping[str, AccuracyCounter]
    protocol: Mapping[str, Any]
    is_thing: Sequence[bool] | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """ "boxes_top1", "boxes_top5" (of things), "thing_masks_top1", "stuff_boxes_top1", ...: percent or NaN."""
        found = {}
        for kind, counter in self.counters.items():
            for things in (True, False):
                name = kind if kind == "boxes" and things else f"{'thing' if things else 'stuff'}_{kind}"
                found[f"{name}_top1"], found[f"{name}_top5"] = counter.accuracy(things=things)
        return found

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class, in label order, as thing or stuff; classes without regions have no accuracy."""
        rows = []
        for label, name in enumerate(self.names):
            parts = [part for part in (True, False) if self._regions(label, part)]
            for things in parts or [None if self.is_thing is None else self.is_thing[label]]:
                row = {"class": name, "kind": {True: "thing", False: "stuff", None: ""}[things]}
                row["regions"] = 0 if things is None else self._regions(label, things)
                for kind, counter in self.counters.items():
                    total, top1, top5 = (0, 0, 0) if things is None else counter.of_class(label, things=things)
                    row[f"{kind}_top1"] = f"{100 * top1 / total:.2f}" if total else ""
                    row[f"{kind}_top5"] = f"{100 * top5 / total:.2f}" if total else ""
                rows.append(row)
        return rows

    def _regions(self, label: int, things: bool) -> int:
        return next(iter(self.counters.values())).of_class(label, things=things)[0]

    def summary(self) -> str:
        """The protocol in one line, and the mean accuracies as a Markdown table."""
        said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in self.protocol.items())
        body = []
        for things in (True, False):
            regions = [self._regions(label, things) for label in range(len(self.names))]
            for kind, counter in self.counters.items():
                part = "thing" if things else "stuff"
                present = sum(n > 0 for n in regions)
                body.append([f"{part} {kind}", present, sum(regions), *counter.accuracy(things=things)])
        headers = ["mean accuracy", "classes with regions", "regions", "top-1", "top-5"]
        return f"Region classification: {said}\n" + tabulate(body, headers=headers, tablefmt="pipe", floatfmt=".2f")

    def class_table(self) -> str:
        """`class_rows` as a Markdown table."""
        return tabulate(self.class_rows(), headers="keys", tablefmt="pipe", disable_numparse=True)

    def write(self, folder: str | Path, stem: str = TASK) -> None:
        """Write `stem`_classes.csv and `stem`_results.json atomically."""
        write_csv(Path(folder) / f"{stem}_classes.csv", self.class_rows())
        write_json(
            Path(folder) / f"{stem}_results.json", {"protocol": self.protocol, "metrics": self.metrics}, indent=2
        )
