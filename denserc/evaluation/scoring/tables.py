"""Objects and detections as columns, and ranks within groups of them.

Eighty thousand images with a hundred detections each take 450 MB as columns and 8 GB as a list of dicts.
Shape letters: D detections, G objects.
"""

import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api

from ...data.datasets.entries import checked_content
from ...structures import DataError
from .result_entries import columns_of

logger = logging.getLogger(__name__)


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
        ignore: (G,) bool: crowds, or with LVIS's rules the objects that the file marks.
        instances: (C,) int64, objects that are not crowds.
        verifiable: Sorted keys whose detections count; None: all do (COCO).
        not_exhaustive: Sorted keys whose unmatched detections are not false.
        annotations: (G,) the file's own dicts, for masks.
        image_sizes: (I, 2) int64 (h, w), zeros where the file has none.
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
            DataError: It has none, or its image no size.
        """
        self.require_mask(row)
        segmentation = self.annotations[row]["segmentation"]
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            return segmentation
        height, width = (int(side) for side in self.image_sizes[self.keys[row] % len(self.image_ids)])
        code = mask_api.frPyObjects(segmentation, height, width)
        return mask_api.merge(code) if isinstance(code, list) else code

    def require_mask(self, row: int) -> None:
        """DataError unless an object has a mask and, where that needs it, its image a size."""
        name, segmentation = f"Annotation {self.annotations[row].get('id')}", self.annotations[row].get("segmentation")
        if not segmentation:
            raise DataError(f"{name} has no 'segmentation': masks cannot be evaluated.")
        compressed = isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list)
        if not compressed and not self.image_sizes[self.keys[row] % len(self.image_ids)].all():
            raise DataError(f"{name} has polygons, but its image has no 'height' and 'width'.")


def read_truth(ground_truth: dict, category_ids: Sequence[int], *, federated: bool) -> Truth:
    """The content of a COCO or LVIS JSON as columns; it is not changed.

    Raises:
        DataError: An entry is not usable (see `denserc.data.datasets.entries`), categories that the file does not
            list, or, with `federated`, no "neg_category_ids".
    """
    ground_truth = checked_content(ground_truth)
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
    """Index of each value in `ids` (all different), -1 where it is absent."""
    if not len(ids):
        return np.full(len(values), -1, dtype=np.int64)
    order = np.argsort(ids)
    found = order[np.searchsorted(ids, values, sorter=order).clip(max=len(ids) - 1)]
    return np.where(ids[found] == values, found, -1)


_BLOCK = 1 << 17  # entries turned into columns at once


@dataclass(frozen=True)
class Detections:
    """A table of detections; rows keep the order in which they were given.

    Args:
        image_ids, category_ids: (D,) int64, the data set's own.
        boxes: (D, 4) float64, [x, y, width, height] in pixels of the original image.
        scores: (D,) float64 scores.
        masks: (D,) compressed RLE {"size", "counts"} or None each; None: no detection has a mask.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def have_masks(self) -> bool:
        """True if there are detections and all of them have a mask."""
        return self.masks is not None and len(self) > 0 and all(mask is not None for mask in self.masks)

    def __getitem__(self, rows: np.ndarray | slice) -> "Detections":
        """Some rows: a slice, indices or a mask of bools."""
        masks = None if self.masks is None else self.masks[rows]
        return Detections(self.image_ids[rows], self.category_ids[rows], self.boxes[rows], self.scores[rows], masks)

    @classmethod
    def joined(cls, tables: Sequence["Detections"]) -> "Detections":
        """Tables below one another."""
        if not tables:
            return cls(*(np.zeros(0, np.int64) for _ in range(2)), np.zeros((0, 4)), np.zeros(0))
        if len(tables) == 1:
            return tables[0]
        masks = None
        if any(table.masks is not None for table in tables):
            masks = np.concatenate([np.full(len(t), None) if t.masks is None else t.masks for t in tables])
        columns = ("image_ids", "category_ids", "boxes", "scores")
        return cls(*(np.concatenate([getattr(table, column) for table in tables]) for column in columns), masks)

    @classmethod
    def from_results(cls, results: Iterable[dict]) -> "Detections":
        """From {"image_id", "category_id", "score", "bbox" and/or "segmentation"}, read one by one.

        Raises:
            DataError: An entry is not a detection; see `result_entries`.
        """
        entries = iter(results)
        tables, read, text_ids = [], 0, 0
        while block := list(itertools.islice(entries, _BLOCK)):
            found = columns_of(block, read)
            tables.append(cls(*found[:5]))
            read, text_ids = read + len(block), text_ids + found.text_ids
        if text_ids:
            logger.warning("%d ids of the results are text of digits; they are taken as numbers.", text_ids)
        return cls.joined(tables)

    def results(self) -> Iterator[dict]:
        """One dict a detection, in COCO's results format."""
        for row, (image, category, box, score) in enumerate(self._rows()):
            result = {"image_id": image, "category_id": category, "bbox": box, "score": score}
            if self.masks is not None and self.masks[row] is not None:
                result["segmentation"] = self.masks[row]
            yield result

    def lines(self) -> Iterator[str]:
        """`results` as lines of JSON."""
        if self.masks is not None or not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            yield from map(json.dumps, self.results())
            return
        # The same text at a third of the time.
        for image, category, (x, y, w, h), score in self._rows():
            yield (
                f'{{"image_id": {image}, "category_id": {category}, '
                f'"bbox": [{x!r}, {y!r}, {w!r}, {h!r}], "score": {score!r}}}'
            )

    def _rows(self) -> Iterator[tuple[int, int, list[float], float]]:
        for start in range(0, len(self), _BLOCK):  # as Python objects the whole would be large
            part = slice(start, start + _BLOCK)
            columns = (self.image_ids, self.category_ids, self.boxes, self.scores)
            yield from zip(*(column[part].tolist() for column in columns), strict=True)


def rank_in_groups(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(D,) the place of each row among those of its group, best score first, of equals the earlier: from 0."""
    order = np.lexsort((-scores, groups))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = places(groups[order])
    return ranks


def places(groups: np.ndarray) -> np.ndarray:
    """(D,) of rows sorted by group: 0, 1, ... within each group."""
    if not len(groups):
        return np.zeros(0, np.int64)
    new = np.r_[True, groups[1:] != groups[:-1]]
    return np.arange(len(groups)) - np.flatnonzero(new)[np.cumsum(new) - 1]


def best_of_class(found: Detections, limit: int) -> np.ndarray:
    """(D,) bool: the `limit` best-scored of each class over all images, as fixed AP counts; of equals the earlier."""
    return rank_in_groups(found.category_ids, found.scores) < limit


def best_of_image(found: Detections, limit: int) -> np.ndarray:
    """(D,) bool: the `limit` best-scored of each image over all classes, as LVIS's API counts."""
    return rank_in_groups(found.image_ids, found.scores) < limit
