"""COCO panoptic annotations (JSON and PNG) as labeled regions, the masks read image by image.

The PNG gives each pixel a segment id, R + 256 G + 65536 B. Masks follow the stored pixels: EXIF does not rotate them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...structures import DataError
from ...structures.files import read_annotation_file
from .catalog import register


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
        DataError: The JSON is absent or malformed; on access, a PNG that is absent or does not fit the JSON.
    """

    def __init__(self, json_file: str | Path, png_root: str | Path, image_root: str | Path):
        content = read_annotation_file(json_file)
        self.json_file = Path(json_file)
        self._png_root, self._image_root = Path(png_root), Path(image_root)
        categories = sorted(content["categories"], key=lambda c: c["id"])
        self.classes: tuple[str, ...] = tuple(c["name"] for c in categories)
        self.is_thing: tuple[bool, ...] = tuple(bool(c.get("isthing", 1)) for c in categories)
        self._label_of = {c["id"]: label for label, c in enumerate(categories)}
        images = {image["id"]: image for image in content["images"]}
        orphans = [a["image_id"] for a in content["annotations"] if a["image_id"] not in images]
        if orphans:
            raise DataError(f"{json_file} annotates images that it does not list: {orphans[:10]}.")
        annotations = sorted(content["annotations"], key=lambda a: a["image_id"])
        self._pairs = [(images[annotation["image_id"]], annotation) for annotation in annotations]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict:
        image, annotation = self._pairs[index]
        ids = read_segment_ids(self._png_root / annotation["file_name"])  # (height, width)
        if ids.shape != (image["height"], image["width"]):
            raise DataError(
                f"{annotation['file_name']} is {ids.shape} (h, w), but {self.json_file} says "
                f"{(image['height'], image['width'])}."
            )
        return {
            "file_name": str(self._image_root / _image_name(image, annotation)),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "segments": [self._segment(segment, ids) for segment in annotation["segments_info"]],
        }

    @property
    def file_names(self) -> list[str]:
        """The pictures' paths, in order; no PNG is read."""
        return [str(self._image_root / _image_name(image, annotation)) for image, annotation in self._pairs]

    def _segment(self, segment: dict, ids: np.ndarray) -> dict:
        if segment["category_id"] not in self._label_of:
            raise DataError(f"{self.json_file} has no category {segment['category_id']} of segment {segment['id']}.")
        label = self._label_of[segment["category_id"]]
        x, y, width, height = segment["bbox"]
        return {
            "label": label,
            "isthing": self.is_thing[label],
            "iscrowd": bool(segment.get("iscrowd", 0)),
            "bbox": (float(x), float(y), float(x + width), float(y + height)),
            "mask": ids == segment["id"],
        }


def read_segment_ids(path: str | Path) -> np.ndarray:
    """A panoptic PNG -> (H, W) int64 segment ids, 0 where nothing is labeled; DataError when it cannot be read."""
    try:
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB")).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"The panoptic PNG {path} cannot be read: {error}.") from error
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


def _image_name(image: dict, annotation: dict) -> str:
    return image.get("file_name") or Path(annotation["file_name"]).with_suffix(".jpg").name
