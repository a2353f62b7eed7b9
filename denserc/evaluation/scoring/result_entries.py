"""Entries of results in COCO's format as columns: one set of rules for files, logs, models and callers.

An entry has "image_id" and "category_id" (whole numbers below 2^53), "score" (finite), and "bbox" [x, y, width, height]
or "segmentation" (run lengths that fill their size), or both. Ids that are written as text of digits are taken as
numbers, and counted.
"""

import itertools
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_api

from ...structures import DataError
from ...structures.records import MAX_ID, short
from ...structures.run_lengths import run_lengths_fault, run_lengths_faults

MAX_COORDINATE = 1e9
"""Largest absolute value of a box's numbers, in pixels."""
_REQUIRED = {"image_id", "category_id", "bbox", "score"}
_PART = 4096  # masks checked at once: bounds memory
EXPECTED = (
    'Expected are "image_id" and "category_id" (whole numbers, the annotation file\'s), "score" (a finite number), and '
    '"bbox" [x, y, width, height] or "segmentation" (run lengths).'
)


class Columns(NamedTuple):
    """Entries as columns; see Detections. `text_ids` is the number of ids that were text of digits."""

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None
    text_ids: int = 0


def columns_of(block: Sequence[Any], first: int = 0) -> Columns:
    """Validate entries and turn them into columns.

    Args:
        block: Entries.
        first: Number of the first one, for messages.

    Raises:
        DataError: One is not a detection; the message has its number, field and value.
    """
    if set(map(type, block)) == {dict} and all(_REQUIRED <= entry.keys() for entry in block):
        values = ([entry[field] for entry in block] for field in ("image_id", "category_id", "bbox", "score"))
        found = plain_columns(*values, [entry.get("segmentation") for entry in block])
        if found is not None:
            return found
    # Something is repaired or refused, or of NumPy's types.
    rows = [_Entry(first + number, entry).row() for number, entry in enumerate(block)]
    masks = [row[4] for row in rows]
    return Columns(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float64),
        objects(masks) if any(mask is not None for mask in masks) else None,
        sum(isinstance(entry[key], str) for entry in block for key in ("image_id", "category_id")),
    )


def in_range(boxes: np.ndarray, scores: np.ndarray) -> bool:
    """True if all numbers are finite and all coordinates are those of some image."""
    return bool(np.isfinite(scores).all() and (np.abs(boxes) <= MAX_COORDINATE).all())


def ids_in_range(ids: np.ndarray) -> bool:
    """True if all ids, of any dtype, are whole numbers below 2^53."""
    return bool((np.abs(ids) < MAX_ID).all() and (ids == np.floor(ids)).all())


def objects(values: Sequence[Any]) -> np.ndarray:
    """(D,) of any objects; NumPy would look into lists."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def plain_columns(images: list, categories: list, boxes: list, scores: list, masks: list) -> Columns | None:
    """Columns of D valid values of JSON's own types each; None if any is not, see `columns_of`.

    Args:
        images, categories, boxes, scores, masks: Values of "image_id", "category_id", "bbox", "score" and
            "segmentation" (None for no mask).
    """
    if not images or set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
        return None
    for ids in (images, categories):
        if set(map(type, ids)) != {int} or not -MAX_ID < min(ids) <= max(ids) < MAX_ID:
            return None
    kinds = set(map(type, itertools.chain(scores, *boxes)))
    if kinds - {float, int} or (int in kinds and not _small_ints(itertools.chain(scores, *boxes))):
        return None
    columns = np.array(boxes, dtype=np.float64), np.array(scores, dtype=np.float64)
    if not in_range(*columns) or not _are_compressed(masks):
        return None
    masks = objects(masks) if any(mask is not None for mask in masks) else None
    return Columns(np.array(images, dtype=np.int64), np.array(categories, dtype=np.int64), *columns, masks)


def _small_ints(values: itertools.chain) -> bool:
    """True if ints among the values fit a float."""
    ints = [value for value in values if type(value) is int]
    return -MAX_ID < min(ints) <= max(ints) < MAX_ID


def _are_compressed(masks: Sequence[Any]) -> bool:
    """True if every mask is None or valid compressed run lengths with a size of two ints."""
    masks = [mask for mask in masks if mask is not None]
    if any(type(mask) is not dict or type(mask.get("counts")) not in (str, bytes) for mask in masks):
        return False
    if any(set(map(type, size)) != {int} if type(size := mask.get("size")) is list else True for mask in masks):
        return False
    parts = (masks[start : start + _PART] for start in range(0, len(masks), _PART))
    return not any(any(run_lengths_faults(part)) for part in parts)


def compressed_mask(value: Any) -> dict | None:
    """Validate the mask of an entry; uncompressed run lengths are compressed.

    Args:
        value: A JSON value. null and an empty list mean that there is no mask.

    Returns:
        {"size": [h, w], "counts": compressed}; None for no mask.

    Raises:
        DataError: Not a mask, described without its place.
    """
    if value is None or (isinstance(value, list) and not value):
        return None
    if isinstance(value, list):
        raise DataError(
            f"its 'segmentation' is a list, {short(value)}. Results have run lengths, not polygons: "
            '{"size": [height, width], "counts": "..."}, which pycocotools.mask.frPyObjects and merge make of polygons.'
        )
    if not isinstance(value, dict):
        raise DataError(
            f"its 'segmentation' is {short(value)}; expected are run lengths, "
            '{"size": [height, width], "counts": "..."}.'
        )
    if fault := run_lengths_fault(value):
        raise DataError(f"its 'segmentation' is damaged: {fault}.")
    size, counts = [int(side) for side in value["size"]], value["counts"]
    if not isinstance(counts, str | bytes):
        code = mask_api.frPyObjects({"size": size, "counts": [int(count) for count in counts]}, *size)
        counts = code["counts"].decode()
    return {"size": size, "counts": counts}


class _Entry:
    """One entry, read field by field.

    Args:
        number: Number of the entry, for messages.
        value: The entry.
    """

    def __init__(self, number: int, value: Any):
        self._name = f"entry {number} is no detection"
        if not isinstance(value, dict):
            raise DataError(f"entry {number} is no detection: {short(value)}. {EXPECTED}")
        self.fields = value

    def row(self) -> tuple[int, int, list[float], float, dict | None]:
        """Image id, category id, box, score and mask."""
        image, category = self._id("image_id"), self._id("category_id")
        score = self._get("score")
        if not _is_finite(score):
            raise self._fault("score", "a finite number")
        mask = None
        if "segmentation" in self.fields:
            try:
                mask = compressed_mask(self.fields["segmentation"])
            except DataError as error:
                raise DataError(f"{self._name} (of image {image}): {error}") from None
        if "bbox" in self.fields:
            box = self._box()
        elif mask is not None:
            box = mask_api.toBbox(mask).tolist()
        else:
            raise DataError(f"{self._name}: it has neither a 'bbox' nor a 'segmentation'. {EXPECTED}")
        return image, category, box, float(score), mask

    def _id(self, field: str) -> int:
        value = self._get(field)
        if isinstance(value, str) and value.isdecimal():
            value = int(value) if len(value) <= 20 else MAX_ID
        if not _is_finite(value) or value != math.floor(value) or not -MAX_ID < value < MAX_ID:
            raise self._fault(field, "a whole number below 2^53, an id of the annotation file")
        return int(value)

    def _box(self) -> list[float]:
        value = self.fields["bbox"]
        numbers = list(value) if isinstance(value, list | tuple | np.ndarray) else []
        if len(numbers) != 4 or not all(_is_finite(one) and abs(one) <= MAX_COORDINATE for one in numbers):
            raise self._fault("bbox", "[x, y, width, height], four finite numbers in pixels")
        return [float(one) for one in numbers]

    def _get(self, field: str) -> Any:
        if field not in self.fields:
            raise DataError(f"{self._name}: it has no '{field}', only {short(list(self.fields))}. {EXPECTED}")
        return self.fields[field]

    def _fault(self, field: str, expected: str) -> DataError:
        return DataError(f"{self._name}: its '{field}' is {short(self.fields[field])}; expected is {expected}.")


def _is_finite(value: Any) -> bool:
    """True for finite numbers of Python and NumPy; True and False are not numbers."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return False
    return abs(value) < MAX_ID**16 if isinstance(value, Integral) else math.isfinite(value)
