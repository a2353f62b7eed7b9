"""Rules of the entries of COCO and LVIS annotation files: one image, one category, one annotation.

An entry is taken as it is, repaired where the fault is harmless, or refused. `entries` applies the rules to files.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...structures import DataError
from ...structures.records import MAX_ID, is_number, short, whole_id
from ...structures.run_lengths import MAX_PIXELS, run_lengths_fault
from ..images.size import upright_size
from .entry_faults import Invalid, Tally, unexpected
from .image_lists import image_path

MAX_SIDE = 1_000_000
"""Pixels; larger sizes and coordinates are refused, since rasterizing them takes gigabytes."""
LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


def place_of(kind: str, index: int, entry: Any) -> str:
    """Place of an entry in its file: "annotations[3], annotation 7 of image 2"."""
    if not isinstance(entry, Mapping):
        return f"{kind}[{index}]"
    name = f"{kind}[{index}], {'category' if kind == 'categories' else kind[:-1]} {short(entry.get('id'))}"
    return f"{name} of image {short(entry.get('image_id'))}" if kind == "annotations" else name


class EntryRules:
    """Applies the rules and counts what they find.

    Args:
        bare: True where only boxes, masks and ids are needed: names of files and classes and sizes may be absent.
        image_root: Folder of the pictures, which give the sizes that the file lacks; None if it is not known.

    Attributes:
        faults, repairs: Check -> Tally.
        sizes: Image id -> (h, w), None where it is not known; of refused images too.
        categories: Ids of the categories, refused ones included.
    """

    def __init__(self, *, bare: bool, image_root: Path | None):
        self.bare = bare
        self.image_root = image_root
        self.faults: dict[str, Tally] = {}
        self.repairs: dict[str, Tally] = {}
        self.sizes: dict[int, tuple[int, int] | None] = {}
        self.categories: set[int] = set()
        self._images: dict[int, dict] = {}
        self._at: tuple[str, int, Any] | str = ""

    def entries(self, kind: str, entries: Sequence[tuple[int, Any]]) -> list[dict]:
        """The valid entries of one of the three lists, repaired where needed; faults are counted.

        Args:
            kind: "images", "categories" or "annotations".
            entries: (index in the file's list, entry).
        """
        rule = {"images": self._image, "categories": self._category, "annotations": self._annotation}[kind]
        kept, kinds = [], ([], [])  # of ids: numbers and others, text
        for index, entry in entries:
            self._at = (kind, index, entry)
            try:
                if not isinstance(entry, dict):
                    raise Invalid(f"malformed-{kind}", f"{short(entry)} is not an object with fields")
                if kind != "annotations":
                    kinds[isinstance(entry.get("id"), str)].append(index)
                taken = rule(entry)
            except Invalid as fault:
                self.fault(fault.check, f"{self._place}: {fault.text}")
                continue
            if taken is not None:
                kept.append(taken)
        if all(kinds):
            given = dict(entries)
            number = place_of(kind, kinds[0][0], given[kinds[0][0]])
            text = (
                f"numbers and text are mixed as ids, and may be of two files; expected are whole numbers as in {number}"
            )
            for index in kinds[1]:
                self.fault(f"malformed-{kind}", f"{place_of(kind, index, given[index])}: {text}")
        return kept

    @property
    def _place(self) -> str:
        return self._at if isinstance(self._at, str) else place_of(*self._at)

    def fault(self, check: str, example: str) -> None:
        """Count a fault."""
        self.faults.setdefault(check, Tally()).add(example)

    def _repair(self, check: str, text: str = "") -> None:
        self.repairs.setdefault(check, Tally()).add(f"{self._place}: {text}" if text else self._place)

    # Images

    def _image(self, image: dict) -> dict | None:
        check, changes = "malformed-images", {}
        changes["id"] = self._id(image, "id", check)
        earlier = changes["id"] in self.sizes
        self.sizes.setdefault(changes["id"], None)
        names = {name: image[name] for name in ("file_name", "coco_url") if image.get(name) is not None}
        for name, value in names.items():
            if not isinstance(value, str) or not value:
                raise unexpected(check, name, value, "the name of a file, as text")
            if not _can_be_a_file(value):
                raise unexpected("malformed-images", name, value, "a name that a file can have")
        if not names and not self.bare:
            raise Invalid(check, "there is no 'file_name' and no 'coco_url'; expected is one of them")
        for name in ("file_name", "coco_url"):
            if name in image and name not in names:
                changes[name] = None
                self._repair("nulls", f"'{name}' is null")
        changes.update(self._size(image, bool(names)))
        for name in LVIS_KEYS:
            if name in image:
                changes[name] = self._id_list(image, name)
        taken = _changed(image, changes)
        size = (taken.get("height"), taken.get("width"))
        if earlier:
            if taken != self._images.get(taken["id"]):
                raise Invalid("image-id-twice", f"'id' is {taken['id']}, which another image has, too")
            self._repair("image-repeated")
            return None
        self._images[taken["id"]] = taken
        self.sizes[taken["id"]] = None if None in size else size
        return taken

    def _size(self, image: dict, named: bool) -> dict[str, int | None]:
        """Changes of "height" and "width"."""
        sides = {}
        for name in ("height", "width"):
            value = image.get(name)
            if value is None:
                continue
            side = whole_id(value)
            if side is None or not 1 <= side <= MAX_SIDE:
                raise unexpected("malformed-images", name, value, f"a whole number from 1 to {MAX_SIDE:,}")
            if type(value) is not int:
                self._repair("sizes-as-text", f"'{name}' is {short(value)}")
            sides[name] = side
        if len(sides) == 2:
            if sides["height"] * sides["width"] > MAX_PIXELS:
                text = f"the image has {sides['height']} x {sides['width']} pixels (h x w)"
                raise Invalid("malformed-images", f"{text}; expected are at most {MAX_PIXELS:,}")
            return sides
        absent = " and ".join(name for name in ("height", "width") if name not in sides)
        if self.image_root is not None and named:
            path = image_path({k: v for k, v in image.items() if v is not None}, self.image_root)
            try:
                height, width = upright_size(path)
            except DataError as error:
                if not self.bare:
                    text = f"there is no {absent}, and the picture does not give it: {error}"
                    raise Invalid("malformed-images", text.rstrip(".")) from None
            else:
                self._repair("sizes-absent")
                return {"height": height, "width": width}
        elif not self.bare:
            raise Invalid("malformed-images", f"there is no {absent}; expected are whole numbers of pixels")
        return {name: None for name in ("height", "width") if name in image}

    def _id_list(self, image: dict, name: str) -> list[int] | None:
        """Ids of an LVIS image's list; None if it is null."""
        value = image[name]
        if value is None:
            self._repair("nulls", f"'{name}' is null")
            return None
        ids = [whole_id(one) for one in value] if isinstance(value, list | tuple) else [None]
        if None in ids:
            raise unexpected("malformed-images", name, value, "a list of category ids")
        if ids != list(value):
            self._repair("ids-as-text", f"'{name}' is {short(value)}")
        return value if ids == value else ids

    # Categories

    def _category(self, category: dict) -> dict:
        check = "malformed-categories"
        changes = {"id": self._id(category, "id", check)}
        twice = changes["id"] in self.categories
        self.categories.add(changes["id"])
        name, frequency = category.get("name"), category.get("frequency")
        if (name is not None or not self.bare) and not _is_text(name):
            given = f"'name' is {short(name)}" if "name" in category else "there is no 'name'"
            raise Invalid(check, f"{given}; expected is the class in words")
        if "frequency" in category and not isinstance(frequency, str):
            if frequency is not None:
                raise unexpected(check, "frequency", frequency, "'f', 'c' or 'r'")
            changes["frequency"] = None
            self._repair("nulls", "'frequency' is null")
        if twice:
            raise Invalid("category-id-twice", f"'id' is {changes['id']}, which another category has, too")
        return _changed(category, changes)

    def without_roots(self, categories: list[dict], used: set[int]) -> list[dict]:
        """Leave out categories that only group others and have the name of a class; names must then differ.

        Exporters write the project as a category without annotations, of which the classes are parts.

        Args:
            used: Ids of categories that have annotations.
        """
        by_name: dict[str, list[dict]] = {}
        for category in categories:
            if category.get("name") is not None:
                by_name.setdefault(category["name"].strip(), []).append(category)
        left_out = set()
        for name, alike in by_name.items():
            if len(alike) == 1:
                continue
            groups = any(_parent(c) == name for c in categories)
            roots = [c for c in alike if groups and c["id"] not in used and _parent(c) != name]
            for category in roots[: len(alike) - 1]:
                left_out.add(category["id"])
                self._at = f"category {category['id']}"
                self._repair("category-is-root", repr(name))
            rest = [c["id"] for c in alike if c["id"] not in left_out]
            if len(rest) > 1:
                text = f"the name of the categories with the ids {', '.join(map(str, rest))}"
                self.fault("category-name-twice", f"categories: {name!r} is {text}; expected is one")
        return [c for c in categories if c["id"] not in left_out] if left_out else categories

    # Annotations

    def _annotation(self, annotation: dict) -> dict:
        check = "malformed-annotations"
        number = annotation.get("id")
        if number is not None and (isinstance(number, bool) or not isinstance(number, str | int | float | np.integer)):
            raise unexpected(check, "id", number, "a number or text")
        image, category = (self._id(annotation, name, check) for name in ("image_id", "category_id"))
        if image not in self.sizes:
            raise unexpected("unknown-image", "image_id", image, "the id of an image that the file lists")
        if category not in self.categories:
            raise unexpected("unknown-category", "category_id", category, "the id of a category that the file lists")
        changes: dict[str, Any] = {"image_id": image, "category_id": category, "bbox": _box(annotation)}
        changes |= {name: self._flag(annotation, name) for name in ("iscrowd", "ignore") if name in annotation}
        if "area" in annotation:
            changes["area"] = self._area(annotation["area"])
        if annotation.get("segmentation") not in (None, []):
            changes["segmentation"] = self._mask(annotation["segmentation"], self.sizes[image])
        return _changed(annotation, changes)

    def _id(self, entry: dict, name: str, check: str) -> int:
        value = entry.get(name)
        number = whole_id(value)
        if number is None:
            if name not in entry:
                raise Invalid(check, f"there is no '{name}'; expected is a whole number")
            raise unexpected(check, name, value, f"a whole number below {MAX_ID}")
        if isinstance(value, str):
            self._repair("ids-as-text", f"'{name}' is {short(value)}")
        elif isinstance(value, float):
            self._repair("ids-as-fractions", f"'{name}' is {value}")
        return number

    def _flag(self, annotation: dict, name: str) -> int:
        value = annotation[name]
        if type(value) is int and value in (0, 1):
            return value
        if value is None or value == "0" or (isinstance(value, bool | float) and value == 0):
            flag = 0
        elif value == "1" or (isinstance(value, bool | float) and value == 1):
            flag = 1
        else:
            raise unexpected("crowd-flag", name, value, "0 or 1")
        self._repair("flags-read", f"'{name}' is {short(value)}")
        return flag

    def _area(self, value: Any) -> float | None:
        if value is None:
            self._repair("area-null")
        elif not _is_real(value) or not 0 <= value <= MAX_SIDE**2:
            raise unexpected("area-malformed", "area", value, "a finite number of pixels from 0")
        return value

    def _mask(self, value: Any, size: tuple[int, int] | None) -> dict | list | None:
        """Valid polygons or run lengths; None if nothing is left."""
        if isinstance(value, dict) and value:
            fault = run_lengths_fault(value, size)
            if fault:
                raise Invalid("mask-malformed", f"'segmentation' is not usable: {fault}")
            return _whole_runs(value)
        if not isinstance(value, list | tuple | dict | str | bool | int | float) or (value and not _is_list(value)):
            raise unexpected("mask-malformed", "segmentation", value, "a list of polygons, or run lengths")
        if not value:
            self._repair("masks-empty", f"'segmentation' is {short(value)}")
            return None
        polygons = _polygons(value)
        if polygons != value:
            self._repair("polygons-nested")
        valid = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
        if len(valid) < len(polygons):
            self._repair("polygons-degenerate")
        return valid or None


def _changed(entry: dict, changes: Mapping[str, Any]) -> dict:
    """The entry itself, or a copy where a field differs; None removes a field."""
    if all(entry.get(name) is value or _same(entry.get(name), value) for name, value in changes.items()):
        if not any(value is None and name in entry for name, value in changes.items()):
            return entry
    taken = {**entry, **changes}
    return {name: value for name, value in taken.items() if not (value is None and name in changes)}


def _same(given: Any, taken: Any) -> bool:
    return type(given) is type(taken) and given == taken


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_real(value: Any) -> bool:
    return is_number(float(value) if isinstance(value, np.number) else value)


def _is_text(name: Any) -> bool:
    """True if a name has letters, and no lone surrogate, which no file can hold."""
    return isinstance(name, str) and bool(name.strip()) and name == name.encode(errors="ignore").decode()


def _can_be_a_file(name: str) -> bool:
    """True if the system can look for a file of this name: no null character, no lone surrogate."""
    if "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _parent(category: dict) -> str:
    parent = category.get("supercategory")
    return parent.strip() if isinstance(parent, str) else ""


def _box(annotation: dict) -> list:
    box = annotation.get("bbox")
    if box is None:
        raise Invalid("malformed-annotations", "there is no 'bbox'; expected is [x, y, width, height]")
    box = box.tolist() if isinstance(box, np.ndarray) else box
    expected = f"[x, y, width, height], four finite numbers of at most {MAX_SIDE:,} pixels"
    if not _is_list(box) or len(box) != 4 or not all(_is_real(side) and abs(side) <= MAX_SIDE for side in box):
        raise unexpected("box-malformed", "bbox", box, expected)
    if box[2] < 0 or box[3] < 0:
        raise unexpected("box-negative", "bbox", box, "[x, y, width, height] of a width and height from 0")
    return box


def _whole_runs(mask: dict) -> dict:
    """Run lengths with whole numbers in place of such as 3.0."""
    size, counts = [int(side) for side in mask["size"]], mask["counts"]
    if _is_list(counts):
        counts = [int(count) for count in counts]
    whole = {**mask, "size": size, "counts": counts}
    return mask if all(_same(mask[name], whole[name]) for name in ("size", "counts")) else whole


def _polygons(value: list | tuple) -> list[list[float]]:
    """Polygons of a list of them, of one flat polygon, or of points [x, y] in place of coordinates."""
    if all(_is_real(number) for number in value):
        return [_coordinates(value)]
    if len(value) >= 3 and all(_is_point(point) for point in value):
        return [_coordinates([number for point in value for number in point])]
    polygons = []
    for polygon in value:
        if not _is_list(polygon):
            raise unexpected("mask-malformed", "segmentation", value, "a list of polygons [x1, y1, x2, y2, ...]")
        if polygon and all(_is_point(point) for point in polygon):
            polygon = [number for point in polygon for number in point]
        polygons.append(_coordinates(polygon))
    return polygons


def _is_point(value: Any) -> bool:
    return _is_list(value) and len(value) == 2 and all(_is_real(number) for number in value)


def _coordinates(polygon: list | tuple) -> list[float]:
    for number in polygon:
        if not _is_real(number) or abs(number) > MAX_SIDE:
            text = f"'segmentation' has the coordinate {short(number)}"
            raise Invalid("mask-malformed", f"{text}; expected are finite numbers of at most {MAX_SIDE:,} pixels")
    return list(polygon)
