"""Average precision per class: one function over our own matching or one of two libraries.

Shape letters: C classes evaluated, T IoU thresholds (.50 to .95), R recall thresholds (101), A area ranges.
"""

import contextlib
import copy
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ...data.datasets.entries import checked_content
from ...structures import ConfigurationError, DataError
from .matching import precision_table
from .plausibility import require_known_ids, require_mask_sizes, with_masks
from .tables import Detections, Truth, best_of_class, best_of_image, read_truth

MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def library_precision(
    ground_truth: dict, found: Detections, truth: Truth, *, masks: bool, max_dets: int, reference: bool
) -> np.ndarray:
    """Compute precision (T, R, C, A), -1 where there is nothing to find.

    Args:
        ground_truth: The annotation file's content; not changed.
        found: Detections of images and classes of the truth.
        truth: The same ground truth as columns; with verifiable keys LVIS's rules are used.
        masks: True to compare masks, False to compare boxes.
        max_dets: Detections of a class in an image that count; with LVIS's rules, of an image.
        reference: True for pycocotools, False for faster-coco-eval.

    Raises:
        DataError: Masks are compared, and an object has none.
    """
    if reference:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluation

        options = {}
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation

        options = {"lvis_style": truth.verifiable is not None}
    if truth.verifiable is not None:
        # faster_coco_eval drops what cannot be verified too, but fails on an image all of whose masks are dropped.
        keys = truth.labels(found.category_ids) * len(truth.image_ids) + truth.images(found.image_ids)
        found = found[np.isin(keys, truth.verifiable)]
    for row in range(len(truth.keys) if masks else 0):
        truth.require_mask(row)
    dataset = _copy_of_truth(ground_truth, truth)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth_api = COCO()
        truth_api.dataset = dataset
        truth_api.createIndex()
        if len(found):
            detection_api = truth_api.loadRes(
                [_without(d, "bbox" if masks else "segmentation") for d in found.results()]
            )
        else:  # loadRes reads the first detection
            detection_api = COCO()
            detection_api.dataset = {**copy.deepcopy(dataset), "annotations": []}
            detection_api.createIndex()
        evaluation = Evaluation(truth_api, detection_api, "segm" if masks else "bbox", **options)
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)[..., 0]
    position = {int(category): i for i, category in enumerate(evaluation.params.catIds)}
    return precision[:, :, [position[int(category)] for category in truth.category_ids]]


def _copy_of_truth(ground_truth: dict, truth: Truth) -> dict:
    """Copy the evaluated part with the fields that the libraries need, because they change it."""
    annotations = []
    wanted = set(truth.category_ids.tolist())
    for annotation in ground_truth["annotations"]:
        if annotation["category_id"] not in wanted:
            continue
        annotation = dict(annotation)
        # The matching stores ids and takes 0 for "no match": a file that counts from 0 would lose an instance.
        annotation["id"] = len(annotations) + 1
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        annotations.append(annotation)
    images = [dict(image) for image in ground_truth["images"]]
    categories = [dict(c) for c in ground_truth["categories"] if c["id"] in wanted]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}


def _without(detection: dict, key: str) -> dict:
    """A copy without its box or its mask: with a box the libraries would sort masks by the box's area."""
    return {name: dict(value) if name == "segmentation" else value for name, value in detection.items() if name != key}


class Backend(Enum):
    """Implementation of the matching of detections with ground truth."""

    COLUMNS = "denserc"  # `matching`: all images and classes at once; the default
    FASTER = "faster_coco_eval"  # C++, image by image and class by class: slow and large with many of both
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
    """Shapes that are compared, boxes or masks. The values are the COCO API's iouType."""

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
    detections: Detections | Iterable[dict],
    *,
    category_ids: Sequence[int],
    shape: Shape = Shape.BOXES,
    max_dets: int | None = 100,
    max_dets_of_class: int | None = None,
    backend: Backend = Backend.COLUMNS,
    federated: bool = False,
) -> ClassScores:
    """AP of each class.

    Args:
        ground_truth: The content of a COCO instances JSON; read, not changed.
        detections: A table, or COCO results {"image_id", "category_id", "bbox" [x, y, w, h] and/or "segmentation"
            RLE, "score"}; read, not changed. Categories that are not evaluated are dropped.
        category_ids: C ids to evaluate, in the order wanted.
        shape: Boxes or masks. Objects without a mask are left out of masks: unmatched detections of their classes in
            their images are not false.
        max_dets: Largest number of detections per image that count: per class with COCO's rules, of all classes
            together with LVIS's, as the reference APIs do. None for no limit.
        max_dets_of_class: Largest number of detections per class over the whole set ("fixed AP", Dave et al. 2021,
            "Evaluating Large-Vocabulary Object Detectors": 10,000); None for no limit.
        federated: LVIS's rules: detections of classes that are neither present in an image nor listed as absent
            there do not count, and those of classes not exhaustively annotated are not false.

    Raises:
        DataError: Detections of images or categories that the ground truth lacks, masks of other sizes than their
            images, or masks asked for where there are none.
        ConfigurationError: LVIS's rules asked of the reference backend, or objects without a mask of either library.
    """
    if federated and backend is Backend.REFERENCE:
        raise ConfigurationError(
            f"LVIS's federated rules need the backend {Backend.COLUMNS.value!r}; {backend.value!r} has only COCO's."
        )
    ground_truth = checked_content(ground_truth)
    truth = read_truth(ground_truth, category_ids, federated=federated)
    listed = {category["id"] for category in ground_truth["categories"]}
    found = _evaluated(detections, truth, shape, listed)
    if shape is Shape.MASKS:
        objects = len(truth.keys)
        truth = with_masks(truth)
        if len(truth.keys) < objects and backend is not Backend.COLUMNS:
            raise ConfigurationError(
                f"{objects - len(truth.keys)} of {objects} objects have no mask, which needs the backend "
                f"{Backend.COLUMNS.value!r}; {backend.value!r} has no rule for them."
            )
    counted = np.bincount(truth.labels(found.category_ids), minlength=len(truth.category_ids))
    if max_dets_of_class is not None:
        found = found[best_of_class(found, max_dets_of_class)]
    if federated and max_dets is not None:
        found = found[best_of_image(found, max_dets)]
    masks = shape is Shape.MASKS
    if backend is Backend.COLUMNS:
        precision = precision_table(found, truth, masks=masks, max_dets=None if federated else max_dets)
    else:
        limit = max(len(found), 1) if max_dets is None else max_dets
        reference = backend is Backend.REFERENCE
        precision = library_precision(ground_truth, found, truth, masks=masks, max_dets=limit, reference=reference)
    return ClassScores(
        category_ids=tuple(category_ids),
        measures=_measures(precision),
        instances=truth.instances,
        detections=counted,
    )


def _evaluated(detections: Detections | Iterable[dict], truth: Truth, shape: Shape, listed: set[int]) -> Detections:
    """The detections of evaluated classes; checked against images and listed categories of the ground truth."""
    found = detections if isinstance(detections, Detections) else Detections.from_results(detections)
    require_known_ids(found, truth, listed)
    if shape is Shape.MASKS and len(found):
        if not found.have_masks:
            raise DataError("Mask AP needs detections with a 'segmentation'; evaluate boxes instead.")
        require_mask_sizes(found, truth)
    known = truth.labels(found.category_ids) >= 0
    return found if known.all() else found[known]


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
