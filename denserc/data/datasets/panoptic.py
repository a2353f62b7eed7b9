"""COCO panoptic annotations (JSON and PNG) as labeled regions, the masks read image by image.

The PNG gives each pixel a segment id, R + 256 G + 65536 B. Masks follow the stored pixels: EXIF does not rotate them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...structures import DataError
from ...structures.files import read_annotation_file
from ...structures.records import Record, is_number, record_of, whole_id
from ..images.opening import opened
from .catalog import register
from .entries import checked_content
from .entry_rules import MAX_SIDE

MAX_SEGMENT_ID = 256**3 - 1
"""Largest id that three channels of 8 bits hold."""
_NUMBERS = {int, float}


class PanopticRegions(Sequence):
    """The images of a panoptic set with their segments; item i reads the i-th image's PNG.

    An item has "file_name", "image_id", "height", "width" and "segments", a list of dicts in the file's order:
    "label" (classes sorted by category id), "isthing" (bool), "iscrowd" (bool), "bbox" (x1, y1, x2, y2) in pixels
    of the image, as the JSON gives it, "mask" (height, width) bool.

    Args:
        json_file: COCO panoptic JSON.
        png_root: Folder of its PNG files.
        image_root: Folder of the pictures.

    Raises:
        DataError: The JSON is absent, or an entry is not usable; names entry, field and value. On access, a PNG that
            is absent, unreadable or of another size.
    """

    def __init__(self, json_file: str | Path, png_root: str | Path, image_root: str | Path):
        content = read_annotation_file(json_file)
        self.json_file = Path(json_file)
        self._png_root, self._image_root = Path(png_root), Path(image_root)
        # The segments have rules of their own.
        listed = checked_content({**content, "annotations": []}, json_file, bare=True)
        categories = sorted(listed["categories"], key=lambda c: c["id"])
        self.classes: tuple[str, ...] = tuple(_record(c, "category", json_file).text("name") for c in categories)
        self.is_thing: tuple[bool, ...] = tuple(_is_thing(c, json_file) for c in categories)
        label_of = {c["id"]: label for label, c in enumerate(categories)}
        images = {image["id"]: image for image in listed["images"]}
        place = Record(str(json_file), content)
        found = [_annotation(entry, images, label_of) for entry in place.records("annotations")]
        self._entries = sorted(found, key=lambda entry: entry.image_id)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict:
        entry = self._entries[index]
        ids = read_segment_ids(self._png_root / entry.png, entry.size)  # (height, width)
        return {
            "file_name": str(self._image_root / entry.picture),
            "image_id": entry.image_id,
            "height": entry.size[0],
            "width": entry.size[1],
            "segments": [
                {
                    "label": segment.label,
                    "isthing": self.is_thing[segment.label],
                    "iscrowd": segment.crowd,
                    "bbox": segment.box,
                    "mask": ids == segment.segment_id,
                }
                for segment in entry.segments
            ],
        }

    @property
    def file_names(self) -> list[str]:
        """The pictures' paths, in order; no PNG is read."""
        return [str(self._image_root / entry.picture) for entry in self._entries]


def read_segment_ids(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a panoptic PNG as (H, W) int64 segment ids, 0 where nothing is labeled.

    Args:
        size: Expected (h, w), compared with the file's header before anything is decoded; None for any.

    Raises:
        DataError: The file is absent, not an image, too large, or of another size.
    """
    with opened(path, "panoptic PNG") as image:
        found = image.height, image.width
        if size is not None and found != size:
            raise DataError(
                f"The panoptic PNG {path} is {found} (h, w); its image is {size}. Export the PNG files again, or "
                "correct the sizes in the JSON file."
            )
        rgb = np.asarray(image.convert("RGB")).astype(np.int64)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def register_panoptic_regions(
    name: str, json_file: str | Path, png_roots: Sequence[str | Path], image_root: str | Path
) -> None:
    """Register `PanopticRegions`, opened when `DatasetCatalog.get(name)` asks for it.

    Detectron2 keeps the sequence as it is given, so masks stay lazy. The classes are its attributes `classes` and
    `is_thing`.

    Args:
        png_roots: Folders that may hold the PNG files, the first that exists is used.
    """
    png_roots = [Path(root) for root in png_roots]

    def load() -> PanopticRegions:
        png_root = next((root for root in png_roots if root.is_dir()), png_roots[0])
        return PanopticRegions(json_file, png_root, image_root)

    register(name, load, json_file=str(json_file), image_root=str(image_root), evaluator_type="region_classification")


@dataclass(frozen=True, slots=True)
class _Segment:
    segment_id: int
    label: int
    crowd: bool
    box: tuple[float, float, float, float]  # (x1, y1, x2, y2)


@dataclass(frozen=True, slots=True)
class _Entry:
    image_id: int
    png: str
    picture: str
    size: tuple[int, int]  # (h, w)
    segments: tuple[_Segment, ...]


def _annotation(record: Record, images: Mapping[int, dict], label_of: Mapping[int, int]) -> _Entry:
    image_id, png = whole_id(record.fields.get("image_id")), record.text("file_name")
    if image_id not in images:
        raise record.fault("image_id", "the id of an image that the file lists")
    image = _record(images[image_id], "image", record.where.split(",")[0])
    if image.fields.get("height") is None or image.fields.get("width") is None:
        raise DataError(f"{image.where}: there is no 'height' or no 'width'; expected are whole numbers of pixels.")
    size = (image.whole("height", low=1), image.whole("width", low=1))
    segments: dict[int, _Segment] = {}
    for index, fields in enumerate(record.list("segments_info")):
        segment = _plain_segment(fields, label_of)
        if segment is None or segment.segment_id in segments:
            one = record_of(f"{record.where}, segments_info[{index}]", fields)
            segment = _segment(one, label_of)
            if segment.segment_id in segments:
                raise one.fault("id", "an id that no other segment of the image has")
        segments[segment.segment_id] = segment
    picture = image.fields.get("file_name") or Path(png).with_suffix(".jpg").name
    return _Entry(image_id, png, picture, size, tuple(segments.values()))


def _plain_segment(fields: object, label_of: Mapping[int, int]) -> _Segment | None:
    """The segment if it is valid as it is, without a `Record`, which takes longer; else None: see `_segment`."""
    if type(fields) is not dict:
        return None
    segment_id, category, box = fields.get("id"), fields.get("category_id"), fields.get("bbox")
    crowd = fields.get("iscrowd", 0)
    if type(segment_id) is not int or type(category) is not int or type(crowd) is not int or type(box) is not list:
        return None
    if len(box) != 4 or not _NUMBERS.issuperset(map(type, box)) or category not in label_of:
        return None
    x, y, width, height = box
    inside = -MAX_SIDE <= x <= MAX_SIDE and -MAX_SIDE <= y <= MAX_SIDE and 0 <= width <= MAX_SIDE
    if not (inside and 0 <= height <= MAX_SIDE and 0 < segment_id <= MAX_SEGMENT_ID and 0 <= crowd <= 1):
        return None
    return _Segment(
        segment_id, label_of[category], crowd == 1, (float(x), float(y), float(x + width), float(y + height))
    )


def _segment(record: Record, label_of: Mapping[int, int]) -> _Segment:
    label = label_of.get(whole_id(record.fields.get("category_id")))
    if label is None:
        raise record.fault("category_id", "the id of a category that the file lists")
    box = record.list("bbox")
    if len(box) != 4 or not all(is_number(side) and abs(side) <= MAX_SIDE for side in box) or min(box[2:]) < 0:
        raise record.fault("bbox", f"[x, y, width, height], finite, of at most {MAX_SIDE:,} pixels, sides from 0")
    x, y, width, height = map(float, box)
    segment_id = record.whole("id", low=1, high=MAX_SEGMENT_ID)
    return _Segment(segment_id, label, _flag(record, "iscrowd", 0), (x, y, x + width, y + height))


def _is_thing(category: dict, json_file: str | Path) -> bool:
    return _flag(_record(category, "category", json_file), "isthing", 1)


def _flag(record: Record, field: str, default: int) -> bool:
    value = record.fields.get(field, default)
    if value not in (0, 1):  # true and false are 1 and 0
        raise record.fault(field, "0 or 1")
    return bool(value)


def _record(entry: dict, kind: str, json_file: str | Path) -> Record:
    return Record(f"{json_file}, {kind} {entry['id']}", entry)
