"""Images with annotated regions, whatever kind of set they come from."""

from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.data import DatasetCatalog
from pycocotools import mask as mask_util

from ..data.annotations import load_annotations
from ..data.json_files import read_annotation_file
from ..data.spread import Spread
from ..structures import ConfigurationError, DataError, Vocabulary
from .named_sets import registered_set


def entries_with_regions(data_set: str, images: str, annotations: str, number: int) -> Sequence[Mapping]:
    """Panoptic entries or detection records, evenly spread over their set.

    Args:
        data_set: a registered set or a YAML description, unless `images` is given.
        images, annotations: a folder, and the COCO-format file for it; or both "".
        number: how many; 0 for all.

    Raises:
        ConfigurationError: an unknown set, or a folder without its file.
        DataError: files of the set are absent or malformed.
    """
    if bool(images) != bool(annotations):
        raise ConfigurationError("--images and --annotations belong together: a folder, and a COCO file for it.")
    if images:
        categories = read_annotation_file(annotations)["categories"]
        names = Vocabulary([c["name"] for c in sorted(categories, key=lambda c: c["id"])])
        entries = load_annotations(annotations, images, names).records
    else:
        entries = DatasetCatalog.get(registered_set(data_set))
    return Spread(entries, number)


def segments_of(entry: Mapping) -> list[dict]:
    """A panoptic entry's segments; of a detection record its instances, by mask where they have one, else by box."""
    if "segments" in entry:
        return entry["segments"]
    if "annotations" not in entry:
        raise DataError(f"{entry.get('file_name')} has neither segments nor annotations; regions are needed.")
    segments = []
    size = entry["height"], entry["width"]
    for instance in entry["annotations"]:
        x, y, width, height = instance["bbox"]
        shape = instance.get("segmentation")
        if shape is None:
            mask = np.zeros(size, dtype=bool)
            mask[max(0, round(y)) : round(y + height), max(0, round(x)) : round(x + width)] = True
        else:
            runs = shape if isinstance(shape, dict) else mask_util.merge(mask_util.frPyObjects(shape, *size))
            mask = mask_util.decode(runs).astype(bool)
        box = (x, y, x + width, y + height)
        segments.append({"label": instance["category_id"], "isthing": True, "bbox": box, "mask": mask})
    return segments
