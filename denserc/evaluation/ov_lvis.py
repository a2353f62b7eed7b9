"""Open-vocabulary LVIS: AP of rare (novel), common, frequent and all classes, for boxes and masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from ..structures import DataError
from .detection import DetectionEvaluator, Protocol, category_ids_of, read_annotations

TASK = "ov_lvis"
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


def frequency_protocol(ground_truth: dict, category_ids: Sequence[int], *, max_dets: int = 300) -> Protocol:
    """LVIS AP: 300 detections per image over all classes, federated annotation.

    ("Fixed AP", 10,000 detections per class, is another protocol and gives other numbers.)

    Raises:
        DataError: categories without a frequency "r", "c" or "f".
    """
    frequency = {category["id"]: category.get("frequency") for category in ground_truth["categories"]}
    strange = sorted(c for c in category_ids if frequency.get(c) not in FREQUENCIES)
    if strange:
        raise DataError(
            f"{len(strange)} categories have no frequency 'r', 'c' or 'f' (ids {strange[:10]}): not an LVIS file."
        )
    groups = {
        name: np.array([frequency[c] == letter for c in category_ids], dtype=bool)
        for letter, name in FREQUENCIES.items()
    }
    groups["all"] = np.ones(len(category_ids), dtype=bool)
    return Protocol(
        task=TASK, title="LVIS AP (federated; rare is novel)", max_dets=max_dets, federated=True, groups=groups
    )


class OvLvisEvaluator(DetectionEvaluator):
    """{"ov_lvis": {"AP_rare", "AP_common", "AP_frequent", "AP_all", "AP50_...", ...}, "ov_lvis_masks": the same}.

    The published figures are mask AP: "ov_lvis_masks".

    Args:
        dataset_name: a registered set with an LVIS v1 JSON.
        output_dir: for predictions, tables and results.
        max_dets: detections per image over all classes that count (LVIS: 300).
        distributed: gather from all ranks.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        max_dets: int = 300,
        distributed: bool = True,
    ):
        ground_truth = read_annotations(dataset_name)
        category_ids = category_ids_of(dataset_name)
        super().__init__(
            ground_truth=ground_truth,
            names=MetadataCatalog.get(dataset_name).thing_classes,
            category_ids=category_ids,
            protocol=frequency_protocol(ground_truth, category_ids, max_dets=max_dets),
            output_dir=output_dir,
            distributed=distributed,
        )
