"""COCO and LVIS annotation files as Detectron2 records, labels given by class name.

Boxes stay (x, y, width, height) in absolute pixels of the image, as in the files, which "bbox_mode" states.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from ...structures import Vocabulary
from ..vocabulary.names import category_ids
from .entries import read_annotations
from .entry_rules import LVIS_KEYS
from .image_lists import image_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedAnnotations:
    """An annotation file read with a vocabulary.

    Args:
        records: One Detectron2 record per image, by image id; "category_id" is the label in the vocabulary.
        label_of: The file's category id -> label, for the classes that the file has.
        frequency: Class name -> "f", "c" or "r" where the file gives it (LVIS).
    """

    records: list[dict]
    label_of: dict[int, int]
    frequency: dict[str, str]


def load_annotations(
    json_file: str | Path, image_root: str | Path, vocabulary: Vocabulary, *, base_only: bool = False
) -> LoadedAnnotations:
    """Read a COCO or LVIS annotation file.

    Annotations of categories outside the vocabulary are left out; so are those of novel classes with `base_only`.
    The number left out is logged. Images are `image_root / file_name`, or, in LVIS files without "file_name", the
    last two parts of "coco_url" below `image_root`. A degenerate polygon is not a mask; its object keeps its box.

    Args:
        base_only: True for training; the file's categories may then lack novel classes.

    Raises:
        DataError: The file is absent or an entry is not usable (see `entries`), or its categories lack a class of the
            vocabulary.
    """
    content = read_annotations(json_file, image_root)
    optional = vocabulary.novel if base_only else ()
    id_of = category_ids(content["categories"], vocabulary.names, optional=optional, where=json_file)
    label = {name: i for i, name in enumerate(vocabulary.names)}
    label_of = {id_of[name]: label[name] for name in id_of}
    wanted = {id_of[name] for name in id_of if not (base_only and name in vocabulary.novel)}

    records = {image["id"]: _record(image, Path(image_root)) for image in content["images"]}
    left_out = 0
    for annotation in content["annotations"]:
        if annotation["category_id"] not in wanted:
            left_out += 1
            continue
        records[annotation["image_id"]]["annotations"].append(_instance(annotation, label_of))
    logger.info(
        "%s: %d images, %d annotations; left out: %d of other or novel classes",
        json_file, len(records), len(content["annotations"]) - left_out, left_out,
    )  # fmt: skip
    frequency_of_id = {c["id"]: c["frequency"] for c in content["categories"] if "frequency" in c}
    return LoadedAnnotations(
        records=[records[image_id] for image_id in sorted(records)],
        label_of=label_of,
        frequency={name: frequency_of_id[i] for name, i in id_of.items() if i in frequency_of_id},
    )


def _record(image: dict, image_root: Path) -> dict:
    path = image_path(image, image_root)
    record = {"file_name": str(path), "image_id": image["id"], "height": image["height"], "width": image["width"]}
    record.update({key: image[key] for key in LVIS_KEYS if key in image})
    record["annotations"] = []
    return record


def _instance(annotation: dict, label_of: dict[int, int]) -> dict:
    instance = {
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": label_of[annotation["category_id"]],
        "iscrowd": annotation.get("iscrowd", 0),
    }
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        compressed = not isinstance(shape["counts"], list)
        instance["segmentation"] = shape if compressed else mask_util.frPyObjects(shape, *shape["size"])
    elif shape:
        instance["segmentation"] = shape
    return instance
