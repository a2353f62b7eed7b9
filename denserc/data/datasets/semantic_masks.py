"""Masks that become label maps: of one object, of PASCAL in Detail's merged file, of PASCAL-Context's .mat files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_util

from ...structures import ConfigurationError, DataError
from ...structures.files import read_annotation_file
from ...structures.records import Record, whole_id
from ...structures.run_lengths import run_lengths_fault, run_lengths_faults
from .entry_rules import MAX_SIDE

_LARGEST_ID = 459
"""PASCAL-Context's category ids are 1 to 459."""


class MergedContext:
    """PASCAL in Detail's trainval_merged.json: label maps of its validation images, masks painted in their order.

    Args:
        json_file: The file.

    Attributes:
        names: Names of the validation images, sorted.

    Raises:
        DataError: The file is absent, has no validation image, or an entry is not usable.
    """

    def __init__(self, json_file: Path):
        content = Record(str(json_file), read_annotation_file(json_file, keys=("images", "annos_segmentation")))
        self.json_file = json_file
        self._images: dict[str, tuple[int, tuple[int, int]]] = {}  # name -> id, (h, w)
        for image in content.records("images"):
            if image.fields.get("phase") == "val":
                name = Path(image.text("file_name")).stem
                if name in self._images or not name:
                    raise image.fault("file_name", "a name that no other image of the phase 'val' has")
                size = tuple(image.whole(side, low=1, high=MAX_SIDE) for side in ("height", "width"))
                self._images[name] = (_id(image, "image_id"), size)
        if not self._images:
            raise DataError(f"{json_file} lists no images of the phase 'val'.")
        self.names = sorted(self._images)
        size_of = dict(self._images.values())
        self._masks: dict[int, list[tuple[dict | list, int]]] = {image_id: [] for image_id in size_of}
        places: list[tuple[Record, dict, tuple[int, int]]] = []
        for annotation in content.records("annos_segmentation"):
            image_id, mask = _id(annotation, "image_id"), annotation.fields.get("segmentation")
            if image_id in size_of:
                if not isinstance(mask, dict):
                    raise annotation.fault("segmentation", "run lengths, {'size', 'counts'}")
                places.append((annotation, mask, size_of[image_id]))
                self._masks[image_id].append((mask, annotation.whole("category_id", high=_LARGEST_ID)))
        faults = run_lengths_faults([mask for _, mask, _ in places], [size for _, _, size in places])
        for (annotation, _, _), fault in zip(places, faults, strict=True):
            if fault:
                raise DataError(f"{annotation.where}: 'segmentation' is not usable: {fault}. Download the file again.")

    def labels(self, name: str) -> np.ndarray:
        """(H, W) int32 category ids, 0 where nothing is labeled."""
        image_id, size = self._images[name]
        labels = np.zeros(size, dtype=np.int32)
        for mask, category in self._masks[image_id]:
            labels[decode_mask(mask, size)] = category
        return labels


def decode_mask(segmentation: dict | Sequence, size: tuple[int, int]) -> np.ndarray:
    """Polygons of a checked file, or run lengths, compressed or not -> (h, w) bool.

    Raises:
        DataError: Run lengths that cannot be decoded, or of another size.
    """
    if not isinstance(segmentation, dict):
        return mask_util.decode(mask_util.merge(mask_util.frPyObjects(segmentation, *size))).astype(bool)
    fault = run_lengths_fault(segmentation, size)
    if fault:
        raise DataError(f"A mask is not usable: {fault}. Export it again.")
    compressed = not isinstance(segmentation["counts"], list)
    return mask_util.decode(segmentation if compressed else mask_util.frPyObjects(segmentation, *size)).astype(bool)


def read_label_map(path: Path) -> np.ndarray:
    """PASCAL-Context's LabelMap of a .mat file as (H, W) whole numbers.

    Raises:
        ConfigurationError: SciPy is not installed.
        DataError: The file cannot be read, or its LabelMap has another form.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigurationError("PASCAL-Context's 459 classes come in .mat files: pip install scipy.") from error
    try:
        labels = np.asarray(loadmat(str(path), variable_names=("LabelMap",))["LabelMap"])
    except Exception as error:  # SciPy lets through whatever its decoder meets in a damaged file
        raise DataError(f"{path} cannot be read as PASCAL-Context's LabelMap: {error!r}. Download it again.") from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: LabelMap is {labels.dtype} {labels.shape}; expected are whole numbers (H, W).")
    return labels


def _id(record: Record, field: str) -> int:
    found = whole_id(record.fields.get(field))
    if found is None:
        raise record.fault(field, "a whole number")
    return found
