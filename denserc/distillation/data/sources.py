"""Sources of training images: folders, annotation files, published and registered data sets, in any mixture.

A source is written KIND:WHERE, see `SourceKind`. Paths are relative to the working directory; an "@" in a path that
has no second part is written with a trailing "@".
"""

import logging
import os
from collections.abc import Iterable, Mapping
from enum import Enum

from detectron2.data import DatasetCatalog

from ...data.datasets.image_lists import ADE20K_IMAGES, VOC_LIST, ade20k_list, coco_list, folder_list, voc_list
from ...structures import ConfigurationError, DataError, choose
from ...structures.records import short
from .regions import ImageRecord

logger = logging.getLogger(__name__)


class SourceKind(Enum):
    """Kind of a source."""

    FOLDER = "folder"  # folder:PATH, every image file below it
    DATASET = "dataset"  # dataset:NAME, registered with Detectron2
    COCO_JSON = "coco_json"  # coco_json:FILE@IMAGE_ROOT, the images that a COCO or LVIS file lists
    VOC = "voc"  # voc:VOCdevkit/VOC2012, or with another list: voc:VOCdevkit/VOC2012@ImageSets/Main/trainval.txt
    ADE20K = "ade20k"  # ade20k:ADEChallengeData2016, or with another folder: ade20k:...@images/validation


def source_images(source: str) -> list[ImageRecord]:
    """The images of one source, written KIND:WHERE.

    Raises:
        ConfigurationError: It is not written so, or the kind is unknown.
        DataError: Its files are absent or empty.
    """
    name, colon, where = source.partition(":")
    if not colon or not where:
        raise ConfigurationError(
            f"A source is written KIND:WHERE, e.g. folder:PATH; got {source!r}. Kinds are "
            f"{[kind.value for kind in SourceKind]}."
        )
    kind = choose(SourceKind, name, "the kind of a source in DISTILL.SOURCES")
    if kind is SourceKind.DATASET:
        return registered_images(where)
    if kind is SourceKind.FOLDER:
        return folder_images(where)
    first, _, second = where.rpartition("@") if "@" in where else (where, "", "")
    if kind is SourceKind.VOC:
        return _records(voc_list(first, second or VOC_LIST))
    if kind is SourceKind.ADE20K:
        return _records(ade20k_list(first, second or ADE20K_IMAGES))
    if not second:
        raise ConfigurationError(f"{source!r} lacks the folder of its images: write coco_json:FILE@IMAGE_ROOT.")
    return _records(coco_list(first, second))


def folder_images(folder: str) -> list[ImageRecord]:
    """Every image file below a folder, sorted by path.

    Raises:
        DataError: The folder is missing or holds no image.
    """
    return _records(folder_list(folder))


def registered_images(name: str) -> list[ImageRecord]:
    """The images of a data set registered with Detectron2; its annotations are not used.

    Raises:
        DataError: No data set of this name, or an empty one.
    """
    if name not in DatasetCatalog.list():
        raise DataError(f"No data set is registered as {name!r}; registered are {sorted(DatasetCatalog.list())}.")
    records = [_registered(d, f"The data set {name!r}, record {i}") for i, d in enumerate(DatasetCatalog.get(name))]
    if not records:
        raise DataError(f"The data set {name!r} holds no images.")
    return records


def _registered(record: Mapping, where: str) -> ImageRecord:
    """An image of a registered set, whose records anybody may have written."""
    path = record.get("file_name") if isinstance(record, Mapping) else None
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise DataError(f"{where}: 'file_name' is {short(path)}; expected is the path of a picture.")
    return ImageRecord(os.fspath(path), record.get("image_id", os.fspath(path)))


def collect_images(names: Iterable[str], sources: Iterable[str] = ()) -> list[ImageRecord]:
    """All images of the named data sets and the sources, in this order.

    Each file comes once, however its path is spelled; the first that names it gives its id. How many images each
    brings is logged.

    Raises:
        DataError: Nothing was named.
    """
    named = [f"dataset:{name}" for name in names] + list(sources)
    unique: dict[tuple[str, str], ImageRecord] = {}
    folder_of: dict[str, str] = {}
    for source in named:
        before, records = len(unique), source_images(source)
        for record in records:
            folder, name = os.path.split(record.path)
            if folder not in folder_of:
                folder_of[folder] = os.path.realpath(folder)
            unique.setdefault((folder_of[folder], name), record)
        logger.info(f"{source}: {len(records)} images, {len(unique) - before} of them not in the sources before.")
    if not unique:
        raise DataError("No training images: name data sets in DATASETS.TRAIN or sources in DISTILL.SOURCES.")
    return list(unique.values())


def _records(pairs: Iterable[tuple[str, int | str]]) -> list[ImageRecord]:
    return [ImageRecord(path, image_id) for path, image_id in pairs]
