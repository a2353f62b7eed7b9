"""The same precision by the libraries: pycocotools, the reference, and faster-coco-eval.

Shape letters as in `precision`.
"""

import contextlib
import copy
import io

import numpy as np

from .detections import Detections
from .truth import Truth


def library_precision(
    ground_truth: dict, found: Detections, truth: Truth, *, masks: bool, max_dets: int, reference: bool
) -> np.ndarray:
    """(T, R, C, A), -1 where there is nothing to find.

    Args:
        ground_truth: the annotation file's content; not changed.
        found: detections of images and classes of the truth.
        truth: the same ground truth as columns; with verifiable keys LVIS's rules are used.
        masks: compare masks, not boxes.
        max_dets: detections of a class in an image that count; with LVIS's rules, of an image.
        reference: pycocotools, otherwise faster-coco-eval.
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
    dataset = _copy_of_truth(ground_truth, truth)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth_api = COCO()
        truth_api.dataset = dataset
        truth_api.createIndex()
        if len(found):
            detection_api = truth_api.loadRes(
                [_without(d, "bbox" if masks else "segmentation") for d in found.results()]
            )
        else:  # loadRes looks at the first detection
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
    """What is evaluated, with the fields that the libraries need, in copies that they may change."""
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
