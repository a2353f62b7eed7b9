"""Open-vocabulary COCO (novel, base, all) and LVIS (rare, common, frequent, all): AP of boxes and masks."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from ...structures import ConfigurationError, DataError, Vocabulary, choose
from ..scoring.average_precision import Backend
from .evaluator import DetectionEvaluator, category_ids_of, read_annotations
from .protocol import Protocol

COCO_TASK = "ov_coco"
CLOSED_TASK = "coco"
LVIS_TASK = "ov_lvis"
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
FIXED_DETECTIONS = 10_000


def split_protocol(vocabulary: Vocabulary, *, max_dets: int = 100) -> Protocol:
    """Build the protocol of the generalized setting: all classes compete, "all" is the mean over all of them.

    A vocabulary without novel classes (transfer to COCO, Objects365, VOC or one's own set) has only the group "all",
    and another task's name, "coco", since nothing open-vocabulary is told apart in it.
    """
    novel = vocabulary.novel_mask().numpy()
    everything = novel | ~novel
    if not novel.any():
        return Protocol(
            task=CLOSED_TASK,
            title="COCO AP (101 recall points), no class named novel",
            max_dets=max_dets,
            groups={"all": everything},
        )
    return Protocol(
        task=COCO_TASK,
        title="open-vocabulary COCO AP, generalized (base and novel classes compete)",
        max_dets=max_dets,
        groups={"novel": novel, "base": ~novel, "all": everything},
    )


class OvCocoEvaluator(DetectionEvaluator):
    """AP, AP50, AP75, APs, APm, APl of novel / base / all classes: {"ov_coco": {"AP50_novel": ...}}.

    A set that names no novel class: {"coco": {"AP_all": ..., "AP50_all": ...}}. VOC's AP50 as the open-vocabulary
    papers report it is this AP50_all: COCO's matching and its 101 recall points, not the 11 of the VOC development kit.
    Masks, when the detector gives them, are reported under "ov_coco_masks" ("coco_masks") in the same terms.

    Args:
        dataset_name: A registered set; its metadata gives thing_classes, novel_classes, json_file and the id map.
        output_dir: Folder for coco_instances_results.json, <task>_classes.csv and <task>_results.json.
        max_dets: Detections per image and class that count (COCO: 100).
        backend: Implementation of the matching.
        distributed: True to gather from all ranks.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        max_dets: int = 100,
        backend: Backend = Backend.COLUMNS,
        distributed: bool = True,
    ):
        metadata = MetadataCatalog.get(dataset_name)
        vocabulary = Vocabulary(metadata.thing_classes, metadata.get("novel_classes", ()))
        super().__init__(
            ground_truth=read_annotations(dataset_name),
            names=vocabulary.names,
            category_ids=category_ids_of(dataset_name),
            protocols=[split_protocol(vocabulary, max_dets=max_dets)],
            output_dir=output_dir,
            backend=backend,
            distributed=distributed,
        )


class LvisProtocol(Enum):
    """Limits of the detections that count; figures of the two protocols do not compare."""

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
        max_dets: Detections per image; only STANDARD.
        max_dets_of_class: Detections per class over the whole set; only FIXED.

    Raises:
        DataError: Categories without a frequency "r", "c" or "f".
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
            task=LVIS_TASK, title="LVIS AP (federated; rare is novel)", max_dets=max_dets, federated=True, groups=groups
        )
    return Protocol(
        task=f"{LVIS_TASK}_fixed",
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
        dataset_name: A registered set with an LVIS v1 JSON.
        output_dir: Folder for predictions, tables and results.
        protocols: Members of LvisProtocol to report, as members or by their values.
        max_dets: Detections of the standard protocol per image over all classes that count (LVIS: 300).
        distributed: True to gather from all ranks.

    Raises:
        ConfigurationError: No protocol, or an unknown one.
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
