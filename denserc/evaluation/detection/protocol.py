"""Evaluation protocols: the detections that count, and the groups of classes that are averaged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..scoring.tables import Detections, best_of_class, best_of_image


@dataclass(frozen=True)
class Protocol:
    """Rules by which a set is scored.

    Args:
        task: The key of the results, e.g. "ov_coco".
        title: Title in tables, e.g. "OV-COCO, generalized".
        max_dets: The detections of an image that count: of each class, or with `federated` of all classes together.
            None: no limit.
        max_dets_of_class: The detections of a class over the whole set that count; None: no limit.
        federated: LVIS's rules of which false detections count.
        groups: Group name -> (C,) bool, the classes whose mean is reported; "all" holds every class.
    """

    task: str
    title: str
    max_dets: int | None
    max_dets_of_class: int | None = None
    federated: bool = False
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def limit(self) -> str:
        """Limits of detections in words: "100 an image and class", "300 an image", "10000 a class"."""
        limits = []
        if self.max_dets is not None:
            limits.append(f"{self.max_dets} an image" + ("" if self.federated else " and class"))
        if self.max_dets_of_class is not None:
            limits.append(f"{self.max_dets_of_class} a class")
        return ", ".join(limits) or "no limit"

    def metric_name(self, measure: str, group: str) -> str:
        """ "AP50_novel"; never with a "-", which Detectron2's copy-paste lines would drop."""
        return f"{measure}_{group}"

    def group_of(self, label: int) -> str:
        """The smallest group that a class belongs to, for the table of classes."""
        sizes = [(int(members.sum()), name) for name, members in self.groups.items() if members[label]]
        return min(sizes)[1]


def countable(protocols: Sequence[Protocol]) -> Callable[[Detections], np.ndarray] | None:
    """table -> (D,) bool, the detections that are not beyond every protocol's limit already.

    None where no protocol limits a class: only fixed AP needs thousands of detections per image, more than memory
    holds for a large set.
    """
    if all(protocol.max_dets_of_class is None for protocol in protocols):
        return None

    def of(found: Detections) -> np.ndarray:
        kept = np.zeros(len(found), dtype=bool)
        for protocol in protocols:
            rows = np.arange(len(found))
            if protocol.max_dets_of_class is not None:
                rows = rows[best_of_class(found[rows], protocol.max_dets_of_class)]
            if protocol.max_dets is not None and protocol.federated:
                rows = rows[best_of_image(found[rows], protocol.max_dets)]
            kept[rows] = True
        return kept

    return of
