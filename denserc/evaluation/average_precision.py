"""Average precision per class, computed by one of two libraries behind one function.

Shape letters: C classes evaluated, T IoU thresholds (.50 to .95), R recall thresholds (101), A area ranges.
"""

import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ..structures import ConfigurationError, DataError

MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Backend(Enum):
    """Which library matches detections to ground truth."""

    FASTER = "faster_coco_eval"  # C++; the default
    REFERENCE = "pycocotools"  # the reference; slower, and without LVIS's rules

    @classmethod
    def named(cls, name: "str | Backend") -> "Backend":
        """A backend by its name; ConfigurationError lists the legal ones."""
        try:
            return cls(name)
        except ValueError:
            raise ConfigurationError(
                f"Unknown evaluation backend {name!r}; choose one of {[b.value for b in cls]}."
            ) from None


class Shape(Enum):
    """What is compared: boxes or masks. The values are the COCO API's iouType."""

    BOXES = "bbox"
    MASKS = "segm"


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, in percent.

    Args:
        category_ids: (C,) the data set's category ids, in the vocabulary's order.
        measures: (C, 6) float64, columns as in MEASURES; NaN where the class has no ground truth to be found.
        instances: (C,) ground-truth instances that are not crowds.
        detections: (C,) detections given (before the limit per image).
    """

    category_ids: tuple[int, ...]
    measures: np.ndarray
    instances: np.ndarray
    detections: np.ndarray

    def mean(self, measure: str, members: np.ndarray | None = None) -> float:
        """Mean over the classes that have ground truth, of all classes or those where members (C,) is True.

        Equal to the COCO API's own average, since every such class has the same number of precision entries.
        NaN when no class is left.
        """
        column = self.measures[:, MEASURES.index(measure)]
        column = column if members is None else column[np.asarray(members, dtype=bool)]
        column = column[~np.isnan(column)]
        return float(column.mean()) if column.size else float("nan")


def score_detections(
    ground_truth: dict,
    detections: Iterable[dict],
    *,
    category_ids: Sequence[int],
    shape: Shape = Shape.BOXES,
    max_dets: int | None = 100,
    max_dets_of_class: int | None = None,
    backend: Backend = Backend.FASTER,
    federated: bool = False,
) -> ClassScores:
    """AP of each class.

    Args:
        ground_truth: the content of a COCO instances JSON; read, not changed.
        detections: COCO results {"image_id", "category_id", "bbox" [x, y, w, h] and/or "segmentation" RLE, "score"};
            read, not changed. Categories that are not evaluated are dropped.
        category_ids: C ids to evaluate, in the order wanted.
        shape: boxes or masks.
        max_dets: the most detections of an image that count: per class with COCO's rules, of all classes together
            with LVIS's, as the reference APIs do. None: no limit.
        max_dets_of_class: the most detections of a class over the whole set that count ("fixed AP", Dave et al. 2021,
            "Evaluating Large-Vocabulary Object Detectors": 10,000); None: no limit.
        federated: LVIS's rules: detections of classes that are neither present in an image nor listed as absent
            there do not count, and those of classes not exhaustively annotated are not false.

    Raises:
        DataError: detections of images that the ground truth lacks, or masks asked for where there are none.
        ConfigurationError: LVIS's rules asked of the reference backend, which has none.
    """
    if federated and backend is not Backend.FASTER:
        raise ConfigurationError(
            f"LVIS's federated rules need the backend {Backend.FASTER.value!r}; {backend.value!r} has only COCO's."
        )
    truth = _truth_of(ground_truth, category_ids, federated)
    found = _results_of(detections, truth, shape)
    by_category = defaultdict(int)
    for detection in found:
        by_category[detection["category_id"]] += 1
    counted = np.array([by_category[c] for c in category_ids], dtype=np.int64)
    if max_dets_of_class is not None:
        found = best_of(found, "category_id", max_dets_of_class)
    if federated:
        found = best_of(found, "image_id", max_dets) if max_dets is not None else found
        found = _verifiable(found, truth)
    limit = max(len(found), 1) if max_dets is None else max_dets
    precision, order = _precision(truth, found, shape, limit, backend, federated)  # (T, R, C, A)
    position = {category: i for i, category in enumerate(order)}
    precision = precision[:, :, [position[c] for c in category_ids]]
    instances = defaultdict(int)
    for annotation in truth["annotations"]:
        instances[annotation["category_id"]] += not annotation["iscrowd"]
    return ClassScores(
        category_ids=tuple(category_ids),
        measures=_measures(precision),
        instances=np.array([instances[c] for c in category_ids], dtype=np.int64),
        detections=counted,
    )


def _measures(precision: np.ndarray) -> np.ndarray:
    """(T, R, C, A) with -1 for "no ground truth" -> (C, 6) percent with NaN."""
    everything = precision[..., 0]  # (T, R, C)
    views = [everything, everything[0:1], everything[5:6]] + [precision[..., area] for area in (1, 2, 3)]
    columns = []
    for view in views:
        known = view > -1
        total = np.where(known, view, 0.0).sum(axis=(0, 1))  # (C,)
        count = known.sum(axis=(0, 1))  # (C,)
        columns.append(np.where(count > 0, 100.0 * total / np.maximum(count, 1), np.nan))
    return np.stack(columns, axis=1)


def _truth_of(ground_truth: dict, category_ids: Sequence[int], federated: bool) -> dict:
    """The part of a data set that is evaluated, with the fields that the libraries need, in copies they may change."""
    wanted = set(category_ids)
    known = {category["id"] for category in ground_truth["categories"]}
    if wanted - known:
        raise DataError(
            f"Categories to evaluate that the ground truth does not list: {sorted(wanted - known)}; it lists "
            f"{len(known)}. Check that the vocabulary and the annotation file belong together."
        )
    annotations = []
    for annotation in ground_truth["annotations"]:
        if annotation["category_id"] not in wanted:
            continue
        annotation = dict(annotation)
        # The matching stores ids and takes 0 for "no match": a file that counts from 0 would lose an instance.
        annotation["id"] = len(annotations) + 1
        annotation.setdefault("iscrowd", 0)
        if "area" not in annotation:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        annotations.append(annotation)
    images = [dict(image) for image in ground_truth["images"]]
    categories = [dict(c) for c in ground_truth["categories"] if c["id"] in wanted]
    if federated:
        lacking = [image["id"] for image in images if "neg_category_ids" not in image]
        if lacking:
            raise DataError(
                f"{len(lacking)} images carry no 'neg_category_ids' (first: {lacking[:5]}): not an LVIS file."
            )
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}


def _results_of(detections: Iterable[dict], truth: dict, shape: Shape) -> list[dict]:
    """The detections of evaluated classes, in copies; checked against the images of the ground truth."""
    categories = {category["id"] for category in truth["categories"]}
    images = {image["id"] for image in truth["images"]}
    kept, strays = [], set()
    for detection in detections:
        if detection["image_id"] not in images:
            strays.add(detection["image_id"])
        if detection["category_id"] not in categories:
            continue
        detection = dict(detection)
        if shape is Shape.MASKS:
            if "segmentation" not in detection:
                raise DataError("Mask AP needs detections with a 'segmentation'; evaluate boxes instead.")
            detection["segmentation"] = dict(detection["segmentation"])
            # With a box present the APIs would sort masks into small, medium and large by the box's area.
            detection.pop("bbox", None)
        else:
            detection.pop("segmentation", None)
        kept.append(detection)
    if strays:
        raise DataError(
            f"Detections of {len(strays)} images that the ground truth does not hold (first: {sorted(strays)[:5]}). "
            f"Evaluate with the annotation file of the set that was run."
        )
    return kept


def best_of(detections: list[dict], key: str, limit: int) -> list[dict]:
    """The `limit` best-scored detections of each image over all classes, or of each class over all images.

    Args:
        key: "image_id" as LVIS's API cuts, "category_id" as fixed AP does; of equal scores the earlier are kept.
    """
    groups = defaultdict(list)
    for detection in detections:
        groups[detection[key]].append(detection)
    kept = []
    for found in groups.values():
        kept.extend(found if len(found) <= limit else sorted(found, key=lambda d: d["score"], reverse=True)[:limit])
    return kept


def _verifiable(detections: list[dict], truth: dict) -> list[dict]:
    """LVIS's rule: detections count where their class is present in the image or listed as absent from it.

    faster_coco_eval drops the others too, but fails on an image all of whose masks are dropped.
    """
    known = {(image["id"], category) for image in truth["images"] for category in image["neg_category_ids"]}
    known |= {(annotation["image_id"], annotation["category_id"]) for annotation in truth["annotations"]}
    return [d for d in detections if (d["image_id"], d["category_id"]) in known]


def _precision(
    truth: dict, detections: list[dict], shape: Shape, max_dets: int, backend: Backend, federated: bool
) -> tuple[np.ndarray, list[int]]:
    """Precision (T, R, C, A), -1 where there is nothing to find, and the category ids of its C axis."""
    if backend is Backend.FASTER:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation

        options = {"lvis_style": federated}
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluation

        options = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth_api = COCO()
        truth_api.dataset = truth
        truth_api.createIndex()
        if detections:
            detection_api = truth_api.loadRes(detections)
        else:  # loadRes looks at the first detection
            detection_api = COCO()
            detection_api.dataset = {**copy.deepcopy(truth), "annotations": []}
            detection_api.createIndex()
        evaluation = Evaluation(truth_api, detection_api, shape.value, **options)
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)
    return precision[..., 0], [int(c) for c in evaluation.params.catIds]
