"""Pascal VOC's annotation files: the size of an image and its objects, each field checked when it is read."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ...structures import DataError
from ...structures.records import short

MAX_SIDE = 10_000_000
"""Sizes and coordinates beyond it are damage, not pictures."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object of an annotation file.

    Args:
        where: File and position, for messages.
        name: Class, as the file spells it.
        corners: (xmin, ymin, xmax, ymax), pixels counted from 1; both corners belong to the box.
        difficult: Whether the object is marked difficult.
    """

    where: str
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """One annotation file.

    Args:
        height, width: Size of the image in pixels.
        objects: Objects in the file's order.
    """

    height: int
    width: int
    objects: tuple[VocObject, ...]


def read_voc_xml(path: str | Path) -> VocAnnotation:
    """Read an annotation file.

    Raises:
        DataError: The file is absent, not XML, or has a document type, which could define entities; or a tag is absent
            or holds something else than its kind of value.
    """
    root = _root(path)
    if root.tag != "annotation":
        raise DataError(f"{path} begins with <{root.tag}>; expected is <annotation>, as Pascal VOC writes it.")
    height, width = (_side(root, f"size/{side}", str(path)) for side in ("height", "width"))
    objects = tuple(_object(item, f"{path}, object {index}") for index, item in enumerate(root.iter("object")))
    return VocAnnotation(height, width, objects)


class _WithoutEntities(ElementTree.TreeBuilder):
    """Builder that refuses a document type: VOC has none, and entities can grow to any size."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"a document type <!DOCTYPE {name}> is not read. Remove it")


def _root(path: str | Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_WithoutEntities())
    try:
        parser.feed(Path(path).read_bytes())
        return parser.close()
    except FileNotFoundError:
        raise DataError(f"The annotation {path} does not exist. Unpack Annotations/ beside ImageSets/.") from None
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        raise DataError(f"The annotation {path} cannot be read: {error}.") from error


def _object(item: ElementTree.Element, where: str) -> VocObject:
    x1, y1, x2, y2 = (_number(item, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
    for low, high, first, last in (("xmin", "xmax", x1, x2), ("ymin", "ymax", y1, y2)):
        if last < first:
            raise DataError(
                f"{where}: <{high}> {last:g} is below <{low}> {first:g}. Correct the corners; they are not x, y, "
                "width, height."
            )
    difficult = (item.findtext("difficult") or "").strip() or "0"
    if difficult not in ("0", "1"):
        raise DataError(f"{where}: <difficult> is {short(difficult)}; expected is 0 or 1.")
    return VocObject(where, _text(item, "name", where), (x1, y1, x2, y2), difficult == "1")


def _side(element: ElementTree.Element, path: str, where: str) -> int:
    value = _number(element, path, where)
    if not 1 <= value <= MAX_SIDE or value != math.floor(value):
        raise DataError(f"{where}: <{path}> is {value:g}; expected is a whole number from 1 to {MAX_SIDE}.")
    return int(value)


def _number(element: ElementTree.Element, path: str, where: str) -> float:
    text = _text(element, path, where)
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not abs(value) <= MAX_SIDE:
        raise DataError(
            f"{where}: <{path}> is {short(text)}; expected is a number from {-MAX_SIDE} to {MAX_SIDE}. Correct it, or "
            "export the annotation again."
        )
    return value


def _text(element: ElementTree.Element, path: str, where: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise DataError(f"{where}: there is no <{path}> in <{element.tag}>.")
    if not text.strip():
        raise DataError(f"{where}: <{path}> is empty.")
    return text.strip()
