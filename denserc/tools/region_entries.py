"""Images with annotated regions, whatever kind of set they come from."""

import itertools
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from detectron2.data import DatasetCatalog
from pycocotools import mask as mask_util

from ..data import register_from_yaml
from ..data.datasets.annotations import load_annotations
from ..data.datasets.builtin import register_all
from ..data.datasets.entries import read_annotations
from ..data.datasets.image_lists import Spread
from ..launch import data_root
from ..structures import ConfigurationError, DataError, Vocabulary


def registered_names(targets: Sequence[str]) -> list[str]:
    """The sets that names and YAML descriptions refer to; built-in and described ones are registered.

    Raises:
        ConfigurationError, DataError: See register_from_yaml.
    """
    register_all(data_root())
    names = [register_from_yaml(target) if target.endswith((".yaml", ".yml")) else (target,) for target in targets]
    return list(dict.fromkeys(itertools.chain.from_iterable(names)))


def registered_set(target: str) -> str:
    """The one set that a name or a YAML description refers to: of a description the last, "val" where it has one.

    Args:
        target: A name or a description.

    Raises:
        ConfigurationError: No such set is registered; or see register_from_yaml.
        DataError: See register_from_yaml.
    """
    name = registered_names([target])[-1]
    known = DatasetCatalog.list()
    if name not in known:
        near = ", ".join(get_close_matches(name, known, n=5, cutoff=0.4)) or "none is like it"
        raise ConfigurationError(
            f"No data set {name!r} is registered, of {len(known)}; the nearest: {near}. One's own is named by its "
            "description, a YAML file (docs/TUTORIAL.md)."
        )
    return name


def entries_with_regions(data_set: str, images: str, annotations: str, number: int) -> Sequence[Mapping]:
    """Panoptic entries or detection records, evenly spread over their set.

    Args:
        data_set: A registered set or a YAML description, unless `images` is given.
        images, annotations: A folder, and the COCO-format file for it; or both "".
        number: Number of images; 0 for all.

    Raises:
        ConfigurationError: An unknown set, or a folder without its file.
        DataError: Files of the set are absent or malformed.
    """
    if bool(images) != bool(annotations):
        raise ConfigurationError("--images and --annotations belong together: a folder, and a COCO file for it.")
    if images:
        categories = read_annotations(annotations, images)["categories"]
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
