"""Synthetic data sets and detections of the real sets' sizes: an annotation file and a results file.

Classes are distributed by a power law as in LVIS, with few of them per image. Detections are jittered objects, some
with wrong classes, and false positives; true ones have slightly higher scores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from denserc.data.proposals import write_results
from denserc.evaluation.detection.prediction_files import write_predictions
from denserc.evaluation.scoring.tables import Detections
from denserc.structures.files import write_json

WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class SetSize:
    """Size of a set.

    Args:
        images, classes: Number of images and of classes.
        objects: Number of objects per image, on average.
        detections: Number of detections per image.
        federated: Annotate as LVIS does: list some classes as absent from an image or as not exhaustively annotated.
    """

    images: int
    classes: int
    objects: float
    detections: int
    federated: bool = False


SETS = {
    "lvis_val": SetSize(19_809, 1203, 12.4, 300, federated=True),
    "coco_val": SetSize(5_000, 80, 7.4, 100),
    "ov_coco_val": SetSize(4_836, 65, 6.8, 100),
    "objects365_v1_val": SetSize(30_000, 365, 15.8, 100),
    "objects365_v2_val": SetSize(80_000, 365, 15.8, 100),
}


def write_set(folder: Path, size: SetSize, *, share: float = 1.0, masks: bool = False, seed: int = 0) -> None:
    """Write folder/truth.json and folder/results.json.

    Args:
        share: Share of the images, 0 to 1.
        masks: True for polygons of the objects and RLE in place of boxes in the detections; slow, for small shares.
    """
    rng = np.random.default_rng(seed)
    images = max(1, round(size.images * share))
    folder.mkdir(parents=True, exist_ok=True)
    frequency = 1.0 / np.arange(1, size.classes + 1)
    frequency = rng.permutation(frequency / frequency.sum())

    kinds = rng.choice(size.classes, (images, 6), p=frequency)  # what an image shows: few classes, several of each
    image = np.repeat(np.arange(images), rng.poisson(size.objects, images))
    label = kinds[image, rng.integers(0, rng.integers(1, 7, images)[image])]
    boxes = _boxes(rng, len(image))
    absent = rng.choice(size.classes, (images, 8), p=frequency)

    found_image, found_label, found, scores = _detections(rng, size, image, label, boxes, absent, frequency)
    ids = 1 + np.arange(images) * 3  # not dense, as in the real sets
    truth = {
        "images": [{"id": int(i), "width": WIDTH, "height": HEIGHT, "file_name": f"{i:012d}.jpg"} for i in ids],
        "categories": [{"id": c + 1, "name": f"class {c}", "frequency": "rcf"[c % 3]} for c in range(size.classes)],
        "annotations": _annotations(ids[image], label, boxes, crowd=rng.random(len(image)) < 0.01, size=size),
    }
    if masks:
        for annotation in truth["annotations"]:
            annotation["segmentation"] = [_octagon(annotation["bbox"])]
    if size.federated:
        present = [set() for _ in range(images)]
        for place, own in zip(image.tolist(), label.tolist(), strict=True):
            present[place].add(own)
        some = rng.random(images) < 0.3
        for place, entry in enumerate(truth["images"]):
            entry["neg_category_ids"] = [int(c) + 1 for c in set(absent[place].tolist()) - present[place]]
            entry["not_exhaustive_category_ids"] = [1 + min(present[place])] if present[place] and some[place] else []
    write_json(folder / "truth.json", truth)
    codes = None
    if masks:
        codes = np.empty(len(found), dtype=object)
        codes[:] = [_rle(box) for box in found.tolist()]
    table = Detections(ids[found_image], found_label + 1, found, scores, codes)
    if not masks:
        write_predictions(folder / "results.json", table)
        return
    # With a box present the reference libraries sort masks into small, medium and large by the box's area.
    rows = ({key: value for key, value in result.items() if key != "bbox"} for result in table.results())
    write_results(folder / "results.json", map(json.dumps, rows))


def _detections(rng, size: SetSize, image, label, boxes, absent, frequency):
    """Images, labels, boxes and scores of `size.detections` detections per image, best first."""
    images = len(absent)
    copies = np.repeat(np.arange(len(image)), rng.integers(1, 4, len(image)))
    shaken = boxes[copies] + rng.normal(0, 0.1, (len(copies), 4)) * boxes[copies][:, [2, 3, 2, 3]]
    wrong = rng.random(len(copies)) < 0.15
    own = np.where(wrong, rng.choice(size.classes, len(copies), p=frequency), label[copies])
    inventions = np.repeat(np.arange(images), size.detections)
    # Half of what a detector invents is of classes that an image's annotation speaks of.
    spoken = absent[inventions, rng.integers(0, absent.shape[1], len(inventions))]
    drawn = rng.choice(size.classes, len(inventions), p=frequency)
    invented = np.where(rng.random(len(inventions)) < 0.5, spoken, drawn)
    found_image = np.concatenate([image[copies], inventions])
    found_label = np.concatenate([own, invented])
    found = np.concatenate([shaken, _boxes(rng, len(inventions))])
    found[:, 2:] = found[:, 2:].clip(1.0)
    scores = np.concatenate([rng.beta(2, 2, len(copies)), rng.beta(1, 6, len(inventions))])
    order = np.lexsort((-scores, found_image))
    starts = np.searchsorted(found_image[order], np.arange(images))
    kept = order[(np.arange(len(order)) - starts[found_image[order]]) < size.detections]
    # Detectors speak float32.
    return found_image[kept], found_label[kept], *(v[kept].astype(np.float32).astype(float) for v in (found, scores))


def _annotations(image_ids, label, boxes, *, crowd, size: SetSize) -> list[dict]:
    columns = (image_ids.tolist(), (label + 1).tolist(), boxes.tolist(), crowd.tolist())
    annotations = []
    for number, (image, category, box, many) in enumerate(zip(*columns, strict=True), start=1):
        annotation = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
        annotations.append(annotation if size.federated else {**annotation, "iscrowd": int(many)})
    return annotations


def _boxes(rng, count: int) -> np.ndarray:
    """(count, 4) [x, y, w, h] inside the image, to 1/100 pixel, small ones more often."""
    sides = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    corner = rng.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    return np.round(np.concatenate([corner, sides], axis=1), 2)


def _octagon(box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    ring = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
    return [round(value, 2) for a, b in ring for value in (x + a * w, y + b * h)]


def _rle(box: Sequence[float]) -> dict:
    code = mask_api.frPyObjects([_octagon(box)], HEIGHT, WIDTH)[0]
    return {"size": code["size"], "counts": code["counts"].decode()}
