"""Open-vocabulary LVIS: AP of rare (novel), common, frequent and all classes, for boxes and masks."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from ..structures import ConfigurationError, DataError, choose
from .detection import DetectionEvaluator, category_ids_of, read_annotations
from .protocol import Protocol

TASK = "ov_lvis"
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
FIXED_DETECTIONS = 10_000


class LvisProtocol(Enum):
    """Which detections count; figures of one protocol do not compare with those of the other."""

    STANDARD = "standard"
    """The best 300 of an image over all classes: what the paper's tables report."""
    FIXED = "fixed"
    """"Fixed AP": the best 10,000 of a class over the whole set, without a limit per image (Dave et al. 2021)."""


def frequency_protocol(
    ground_truth: dict,
    category_ids: Sequence[int],
    kind: LvisProtocol = LvisProtocol.STANDARD,
    *,
    max_dets: int = 300,
    max_dets_of_class: int = FIXED_DETECTIONS,
) -> Protocol:
    """LVIS AP with federated annotation.

    Args:
        max_dets: of an image; STANDARD alone.
        max_dets_of_class: of a class over the whole set; FIXED alone.

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
    if kind is LvisProtocol.STANDARD:
        return Protocol(
            task=TASK, title="LVIS AP (federated; rare is novel)", max_dets=max_dets, federated=True, groups=groups
        )
    return Protocol(
        task=f"{TASK}_fixed",
        title="LVIS fixed AP (federated; rare is novel)",
        max_dets=None,
        max_dets_of_class=max_dets_of_class,
        federated=True,
        groups=groups,
    )


class OvLvisEvaluator(DetectionEvaluator):
    """{"ov_lvis": {"AP_rare", "AP_common", "AP_frequent", "AP_all", "AP50_...", ...}, "ov_lvis_masks": the same}.

    The published figures are mask AP: "ov_lvis_masks". Fixed AP, where asked for, is "ov_lvis_fixed" and
    "ov_lvis_fixed_masks".

    Args:
        dataset_name: a registered set with an LVIS v1 JSON.
        output_dir: for predictions, tables and results.
        protocols: which of LvisProtocol to report, as members or by their values.
        max_dets: of the standard protocol: detections per image over all classes that count (LVIS: 300).
        distributed: gather from all ranks.

    Raises:
        ConfigurationError: no protocol, or an unknown one.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        protocols: Sequence[LvisProtocol | str] = (LvisProtocol.STANDARD,),
        max_dets: int = 300,
        distributed: bool = True,
    ):
        kinds = [choose(LvisProtocol, kind, "TEST.LVIS_PROTOCOLS") for kind in dict.fromkeys(protocols)]
        if not kinds:
            raise ConfigurationError("TEST.LVIS_PROTOCOLS is empty; name at least one of 'standard' and 'fixed'.")
        ground_truth = read_annotations(dataset_name)
        category_ids = category_ids_of(dataset_name)
        super().__init__(
            ground_truth=ground_truth,
            names=MetadataCatalog.get(dataset_name).thing_classes,
            category_ids=category_ids,
            protocols=[frequency_protocol(ground_truth, category_ids, kind, max_dets=max_dets) for kind in kinds],
            output_dir=output_dir,
            distributed=distributed,
        )
