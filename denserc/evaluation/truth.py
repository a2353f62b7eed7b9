"""Ground truth as columns. Shape letters: G objects, I images, C classes evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api

from ..structures import DataError


@dataclass(frozen=True)
class Truth:
    """The part of a data set that is evaluated.

    A pair of a class and an image is one number, its key: label * I + the image's place among the sorted ids.

    Args:
        image_ids: (I,) int64, sorted.
        category_ids: (C,) int64, in the vocabulary's order.
        keys: (G,) int64, sorted; objects of one key in the file's order.
        boxes: (G, 4) float64, [x, y, width, height].
        areas: (G,) float64, the annotation's; with LVIS's rules as without.
        crowd: (G,) bool. LVIS has none.
        ignore: (G,) bool: crowds, or with LVIS's rules what the file says to ignore.
        instances: (C,) int64, objects that are no crowds.
        verifiable: sorted keys whose detections count; None: all do (COCO).
        not_exhaustive: sorted keys whose unmatched detections are not false.
        annotations: (G,) the file's own dicts, for masks.
        image_sizes: (I, 2) int64 (h, w), zeros where the file does not say.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    keys: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    instances: np.ndarray
    verifiable: np.ndarray | None
    not_exhaustive: np.ndarray
    annotations: list[dict]
    image_sizes: np.ndarray

    def labels(self, category_ids: np.ndarray) -> np.ndarray:
        """Category ids -> labels, -1 where a class is not evaluated."""
        return _place(self.category_ids, category_ids)

    def images(self, image_ids: np.ndarray) -> np.ndarray:
        """Image ids -> places among the sorted ids, -1 where the data set has no such image."""
        return _place(self.image_ids, image_ids)

    def rle(self, row: int) -> dict:
        """The mask of an object as compressed RLE.

        Raises:
            DataError: it has none, or its image no size.
        """
        segmentation = self.annotations[row].get("segmentation")
        if not segmentation:
            raise DataError(
                f"Annotation {self.annotations[row].get('id')} has no 'segmentation': masks cannot be evaluated."
            )
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            return segmentation
        height, width = (int(side) for side in self.image_sizes[self.keys[row] % len(self.image_ids)])
        if not (height and width):
            raise DataError(f"The image of annotation {self.annotations[row].get('id')} has no 'height' and 'width'.")
        code = mask_api.frPyObjects(segmentation, height, width)
        return mask_api.merge(code) if isinstance(code, list) else code


def read_truth(ground_truth: dict, category_ids: Sequence[int], *, federated: bool) -> Truth:
    """The content of a COCO or LVIS JSON as columns; it is not changed.

    Raises:
        DataError: categories that the file does not list, annotations of images that it does not list, or, with
            `federated`, no "neg_category_ids".
    """
    known = {category["id"] for category in ground_truth["categories"]}
    unknown = sorted(set(category_ids) - known)
    if unknown:
        raise DataError(
            f"Categories to evaluate that the ground truth does not list: {unknown}; it lists {len(known)}. Check that "
            "the vocabulary and the annotation file belong together."
        )
    images = sorted(ground_truth["images"], key=lambda image: image["id"])
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    categories = np.array(category_ids, dtype=np.int64)
    wanted = set(category_ids)
    annotations = [a for a in ground_truth["annotations"] if a["category_id"] in wanted]
    place = _place(image_ids, np.array([a["image_id"] for a in annotations], dtype=np.int64))
    if len(place) and place.min() < 0:
        stray = annotations[int(place.argmin())]
        raise DataError(f"Annotation {stray.get('id')} is of image {stray['image_id']}, which the file does not list.")
    label = _place(categories, np.array([a["category_id"] for a in annotations], dtype=np.int64))
    keys = label * len(image_ids) + place
    order = np.argsort(keys, kind="stable")
    annotations = [annotations[row] for row in order]
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool)
    ignored = [bool(a.get("ignore", 0)) for a in annotations] if federated else crowd
    verifiable, not_exhaustive = None, np.zeros(0, dtype=np.int64)
    if federated:
        lacking = [image["id"] for image in images if "neg_category_ids" not in image]
        if lacking:
            raise DataError(
                f"{len(lacking)} images carry no 'neg_category_ids' (first: {lacking[:5]}): not an LVIS file."
            )
        verifiable = np.union1d(_keys_of_lists(images, "neg_category_ids", categories), keys)
        not_exhaustive = np.unique(_keys_of_lists(images, "not_exhaustive_category_ids", categories))
    return Truth(
        image_ids=image_ids,
        category_ids=categories,
        keys=keys[order],
        boxes=boxes,
        areas=np.array([a["area"] if "area" in a else a["bbox"][2] * a["bbox"][3] for a in annotations], np.float64),
        crowd=np.zeros_like(crowd) if federated else crowd,
        ignore=np.array(ignored, dtype=bool),
        instances=np.bincount(label[order][~crowd], minlength=len(categories)),
        verifiable=verifiable,
        not_exhaustive=not_exhaustive,
        annotations=annotations,
        image_sizes=np.array([(i.get("height", 0), i.get("width", 0)) for i in images], np.int64).reshape(-1, 2),
    )


def _keys_of_lists(images: list[dict], name: str, categories: np.ndarray) -> np.ndarray:
    """Keys of the classes that each image names under `name`."""
    lists = [image.get(name, ()) for image in images]
    place = np.repeat(np.arange(len(images)), [len(ids) for ids in lists])
    label = _place(categories, np.array([c for ids in lists for c in ids], dtype=np.int64))
    return (label * len(images) + place)[label >= 0]


def _place(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where each value stands in `ids` (no two alike), -1 where it does not."""
    if not len(ids):
        return np.full(len(values), -1, dtype=np.int64)
    order = np.argsort(ids)
    found = order[np.searchsorted(ids, values, sorter=order).clip(max=len(ids) - 1)]
    return np.where(ids[found] == values, found, -1)
