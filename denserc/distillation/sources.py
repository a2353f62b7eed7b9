"""Where training images come from: folders and registered data sets, mixed at will."""

import os
from collections.abc import Iterable

from detectron2.data import DatasetCatalog

from ..structures import DataError
from .regions import ImageRecord

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def folder_images(folder: str) -> list[ImageRecord]:
    """Every image file below a folder, sorted by path.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder of images.")
    paths = sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    )
    if not paths:
        raise DataError(f"No image below {folder}; looked for {sorted(IMAGE_SUFFIXES)}.")
    return [ImageRecord(path, path) for path in paths]


def registered_images(name: str) -> list[ImageRecord]:
    """The images of a data set registered with Detectron2; its annotations are not used.

    Raises:
        DataError: no data set of this name, or an empty one.
    """
    if name not in DatasetCatalog.list():
        raise DataError(f"No data set is registered as {name!r}; registered are {sorted(DatasetCatalog.list())}.")
    records = [ImageRecord(d["file_name"], d.get("image_id", d["file_name"])) for d in DatasetCatalog.get(name)]
    if not records:
        raise DataError(f"The data set {name!r} holds no images.")
    return records


def register_folder(name: str, folder: str) -> None:
    """Registers a folder's images as a data set without annotations; registering again replaces it.

    Nothing is read until the data set is used.
    """
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    DatasetCatalog.register(
        name, lambda: [{"file_name": r.path, "image_id": r.image_id} for r in folder_images(folder)]
    )


def collect_images(names: Iterable[str], folders: Iterable[str]) -> list[ImageRecord]:
    """All images of the named data sets and of the folders, each file once, in order.

    Raises:
        DataError: nothing was named.
    """
    unique: dict[str, ImageRecord] = {}
    for record in (r for name in names for r in registered_images(name)):
        unique.setdefault(record.path, record)
    for record in (r for folder in folders for r in folder_images(folder)):
        unique.setdefault(record.path, record)
    if not unique:
        raise DataError("No training images: name data sets in DATASETS.TRAIN or folders in DISTILL.FOLDERS.")
    return list(unique.values())
