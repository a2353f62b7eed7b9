"""The one reader of COCO and LVIS annotation files, used by loader, evaluators, doctor and writers of new sets.

`read_annotations` gives the content of a file whose entries can be trusted: every id is a whole number that the file
lists, every box four finite numbers, every mask polygons or run lengths that C code survives. Harmless faults are
repaired and counted in one warning; others are a DataError. Valid entries are the file's own dicts.
"""

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ...structures import DataError
from ...structures.files import read_annotation_file
from ...structures.records import MAX_ID, short
from ...structures.run_lengths import MAX_PIXELS
from .entry_faults import FAULTS, REPAIRS, Tally
from .entry_rules import LVIS_KEYS, MAX_SIDE, EntryRules

KINDS = ("images", "categories", "annotations")
_BLOCK = 1 << 14  # annotations looked at together
logger = logging.getLogger(__name__)


class AnnotationContent(dict):
    """Content of an annotation file whose entries are checked and repaired; otherwise an ordinary dict."""


@dataclass(frozen=True)
class Inspection:
    """Usable and unusable entries of an annotation file.

    Args:
        content: The file's content with its valid entries, repaired where needed.
        faults: Check of `entry_faults.FAULTS` -> its number and examples.
        repairs: Check of `entry_faults.REPAIRS` -> its number and examples.
    """

    content: AnnotationContent
    faults: dict[str, Tally]
    repairs: dict[str, Tally]


def read_annotations(
    path: str | Path, image_root: str | Path | None = None, *, bare: bool = False
) -> AnnotationContent:
    """Read a COCO or LVIS annotation file.

    Args:
        image_root: Folder of the images, whose headers give the sizes that the file lacks; None for no folder.
        bare: True where boxes, masks and ids are enough, as for scoring: names and sizes may be absent.

    Raises:
        DataError: The file is absent, or an entry is not usable; names file, entry, field, value and remedy.
    """
    return checked_content(read_annotation_file(path), path, image_root, bare=bare)


def checked_content(
    content: Any, where: str | Path = "The ground truth", image_root: str | Path | None = None, *, bare: bool = True
) -> AnnotationContent:
    """Check the content of an annotation file; it is not changed. Content that was checked before is returned.

    Args:
        where: Name of the file, for messages.
        image_root, bare: See `read_annotations`.

    Raises:
        DataError: An entry is not usable.
    """
    if isinstance(content, AnnotationContent):
        return content
    inspection = inspect_content(content, image_root, bare=bare)
    for check, tally in inspection.faults.items():
        number = sum(one.count for one in inspection.faults.values())
        more = f" The file has {number:,} such faults; `denserc doctor` lists them." if number > 1 else ""
        raise DataError(f"{where}, {tally.examples[0]}. {FAULTS[check][1]}{more}")
    if inspection.repairs:
        kinds = (
            f"{tally.count:,} {REPAIRS[check][0]} ({tally.examples[0]})" for check, tally in inspection.repairs.items()
        )
        logger.warning("%s was repaired while it was read: %s.", where, "; ".join(kinds))
    return inspection.content


def inspect_content(content: Any, image_root: str | Path | None = None, *, bare: bool = False) -> Inspection:
    """Sort the entries of an annotation file into valid, repaired and not usable; whatever the content, no error.

    Args:
        content: Decoded JSON; it is not changed.
        image_root, bare: See `read_annotations`.
    """
    rules = EntryRules(bare=bare, image_root=None if image_root is None else Path(image_root))
    if not isinstance(content, dict):
        rules.fault("no-images", f"the content is {short(content)}; expected are images, annotations and categories")
        content = {}
    lists: dict[str, list] = {}
    for kind in KINDS:
        value = content.get(kind)
        if isinstance(value, list):
            lists[kind] = value
            continue
        lists[kind] = []
        absent = value is None and kind != "annotations"
        rules.fault(f"no-{kind}" if absent else f"malformed-{kind}", f"{kind}: {short(value)} is not a list")
    images = _images(lists["images"], rules)
    categories = rules.entries("categories", list(enumerate(lists["categories"])))
    annotations = _annotations(lists["annotations"], rules)
    if len({c["name"].strip() for c in categories if c.get("name")}) < len(categories):
        categories = rules.without_roots(categories, {a["category_id"] for a in annotations})
    checked = AnnotationContent({**content, "images": images, "annotations": annotations, "categories": categories})
    return Inspection(checked, rules.faults, rules.repairs)


def _images(images: list, rules: EntryRules) -> list[dict]:
    """The valid images; the list itself if all are and nothing was repaired."""
    sizes = _plain_sizes(images)
    if sizes is None:
        return rules.entries("images", list(enumerate(images)))
    rules.sizes.update(sizes)
    return images


def _plain_sizes(images: list) -> dict[int, tuple[int, int]] | None:
    """Image id -> (h, w); None unless all images are valid as they are, by the rules of `EntryRules`."""
    if set(map(type, images)) != {dict}:
        return None
    ids, heights, widths = ([image.get(name) for image in images] for name in ("id", "height", "width"))
    if set(map(type, chain(ids, heights, widths))) != {int} or len(set(ids)) < len(ids):
        return None
    if min(ids) <= -MAX_ID or max(ids) >= MAX_ID or min(chain(heights, widths)) < 1:
        return None
    if max(heights) * max(widths) > MAX_PIXELS or max(chain(heights, widths)) > MAX_SIDE:
        return None
    for image in images:
        names = image.get("file_name", ""), image.get("coco_url", "")
        if not all(type(name) is str and name.isascii() and "\0" not in name for name in names):
            return None
        if not (names[0] if "file_name" in image else names[1]) or ("coco_url" in image and not names[1]):
            return None
        for name in LVIS_KEYS:
            listed = image.get(name, ())
            if name in image and (type(listed) is not list or not set(map(type, listed)) <= {int}):
                return None
            if listed and not (min(listed) > -MAX_ID and max(listed) < MAX_ID):
                return None
    return dict(zip(ids, zip(heights, widths, strict=True), strict=True))


def _annotations(annotations: list, rules: EntryRules) -> list[dict]:
    """The valid annotations; the list itself if all are and nothing was repaired."""
    images, taken, changed = rules.sizes.keys(), [], False
    known = frozenset(images), frozenset(rules.categories)
    for start in range(0, len(annotations), _BLOCK):
        block = annotations[start : start + _BLOCK]
        if not _is_plain(block, *known):
            block = rules.entries("annotations", list(enumerate(block, start)))
            changed = True
        taken.append(block)
    return list(chain.from_iterable(taken)) if changed else annotations


def _is_plain(block: list, images: frozenset[int], categories: frozenset[int]) -> bool:
    """True if all annotations of a block are valid as they are: the rules of `EntryRules`, by columns.

    Run lengths need the rules, which makes their block "not plain".
    """
    if set(map(type, block)) != {dict}:
        return False
    for name, listed in (("image_id", images), ("category_id", categories)):
        ids = [a.get(name) for a in block]
        if set(map(type, ids)) != {int} or not listed.issuperset(ids):
            return False
    if not set(map(type, [a.get("id") for a in block])) <= {int, str, type(None)}:
        return False
    for name in ("iscrowd", "ignore"):
        flags = [a.get(name, 0) for a in block]
        if set(map(type, flags)) != {int} or not set(flags) <= {0, 1}:
            return False
    areas = _numbers([[a.get("area", 0) for a in block]])
    if areas is None or not _within(areas, 0, MAX_SIDE**2):
        return False
    boxes = [a.get("bbox") for a in block]
    if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
        return False
    sides = _numbers(boxes)
    if sides is None or not _within(sides, -MAX_SIDE, MAX_SIDE) or sides.reshape(-1, 4)[:, 2:].min() < 0:
        return False
    masks = [mask for a in block if (mask := a.get("segmentation")) is not None]
    if not masks:
        return True
    if set(map(type, masks)) != {list}:
        return False
    polygons = list(chain.from_iterable(masks))
    if not set(map(type, polygons)) <= {list}:
        return False
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    if not ((lengths >= 6) & (lengths % 2 == 0)).all():
        return False
    coordinates = _numbers(polygons)
    return coordinates is not None and _within(coordinates, -MAX_SIDE, MAX_SIDE)


def _numbers(lists: Sequence[list]) -> np.ndarray | None:
    """All values of some lists as float64; None if one is not a number."""
    values = array("d")
    try:
        for numbers in lists:
            values.fromlist(numbers)
    except (TypeError, OverflowError):  # text, null, a list; an int beyond float64
        return None
    column = np.frombuffer(values, dtype=np.float64)
    # An array takes true and false for 1 and 0; lists with such values, which are few, are looked at again.
    suspects = np.flatnonzero((column == 0) | (column == 1))
    if len(suspects):
        ends = np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)))
        rows = np.unique(np.searchsorted(ends, suspects, side="right"))
        if not set(map(type, chain.from_iterable(lists[row] for row in rows))) <= {int, float}:
            return None
    return column


def _within(values: np.ndarray, low: float, high: float) -> bool:
    """True if all values are numbers from low to high: NaN becomes minimum and maximum, and compares as false."""
    return not len(values) or bool(values.min() >= low and values.max() <= high)
