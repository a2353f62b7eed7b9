"""Faults of annotation files by name, with their remedies, and what is repaired; `entry_rules` finds them."""

from dataclasses import dataclass, field
from typing import Any

from ...structures.records import short

EXAMPLES = 5

# Check -> what it finds, and the remedy.
FAULTS = {
    "no-images": ('"images" is empty, or not a list', "Export the file again."),
    "no-categories": ('"categories" is empty, or not a list', "Export the file again."),
    "malformed-images": ('entries of "images" that are not usable', "Correct these entries, or export the file again."),
    "malformed-annotations": (
        'entries of "annotations" that are not usable', "Correct these entries, or export the file again.",
    ),
    "malformed-categories": (
        'entries of "categories" that are not usable', "Correct these entries, or export the file again.",
    ),
    "image-id-twice": ("image ids of several different images", "Give every image an id of its own."),
    "category-id-twice": ("ids of several categories", "Give every category an id of its own."),
    "category-name-twice": ("names of several categories", "Merge these categories, or remove the one without boxes."),
    "unknown-image": (
        "annotations of images that the file does not list",
        "Remove these annotations, or export the file with what they belong to.",
    ),
    "unknown-category": (
        "annotations of categories that the file does not list",
        "Remove these annotations, or export the file with what they belong to.",
    ),
    "box-malformed": ("boxes that are not four finite numbers", "Write [x, y, width, height] in pixels."),
    "box-negative": (
        "boxes of negative width or height", "Write [x, y, width, height] with x, y the upper left corner.",
    ),
    "crowd-flag": ("flags that are neither 0 nor 1", "Write 0 or 1."),
    "area-malformed": ('"area" that is not a number of pixels', 'Write a number, or leave "area" out.'),
    "mask-malformed": (
        "masks that are neither polygons nor run lengths of their image's size",
        "Write a list of polygons [x1, y1, x2, y2, x3, y3, ...], or {size: [height, width], counts: ...}.",
    ),
}  # fmt: skip

# Check -> what was repaired, and what to do.
REPAIRS = {
    "flags-read": ("flags that are null, text or a truth value, read as 0 or 1", "Write 0 or 1; other tools refuse."),
    "area-null": ('"area" that is null, taken from the box', 'Leave "area" out, or write the area of the object.'),
    "sizes-as-text": ("sizes of images that are text or fractions, read as whole numbers", "Write whole numbers."),
    "sizes-absent": ("images without a size, taken from their pictures", "Write height and width; this takes time."),
    "polygons-nested": (
        "masks with another nesting, read as polygons", "Write a list of polygons [x1, y1, x2, y2, x3, y3, ...].",
    ),
    "polygons-degenerate": (
        "objects with polygons of fewer than three corners, which are left out; their boxes are used",
        "Write at least three corners; without a mask, train with MODEL.MASK_ON False.",
    ),
    "masks-empty": ("empty values as masks, left out", 'Leave "segmentation" out, or write [].'),
    "ids-as-text": ("ids that are text of digits, read as whole numbers", "Write whole numbers; other tools refuse."),
    "ids-as-fractions": ("ids such as 3.0, read as whole numbers", "Write whole numbers."),
    "nulls": ("fields that are null, read as absent", "Leave them out."),
    "image-repeated": ("images that are listed again with the same fields, read once", "List each image once."),
    "category-is-root": (
        "categories without annotations that only group others, left out for the class of the same name",
        "Nothing; remove them if another tool confuses them.",
    ),
}  # fmt: skip


class Invalid(Exception):
    """A fault of one entry.

    Args:
        check: Key of FAULTS.
        text: Value found and value expected, without the place of the entry.
    """

    def __init__(self, check: str, text: str):
        super().__init__(text)
        self.check = check
        self.text = text


def unexpected(check: str, name: str, value: Any, expected: str) -> Invalid:
    """The fault of a field that holds something else than expected."""
    return Invalid(check, f"'{name}' is {short(value)}; expected is {expected}")


@dataclass
class Tally:
    """Number of cases of one kind, with the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str, count: int = 1) -> None:
        """Count a case."""
        self.count += count
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)
