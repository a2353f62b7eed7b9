"""A folder of images and a COCO file become a described data set (`denserc dataset new`)."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..data.datasets.splits import count, split_by_images
from ..data.vocabulary.names import categories_by_name, category_ids
from ..structures.files import read_annotation_file, write_json, write_text


def new_data_set(
    name: str,
    annotations: str | Path,
    images: str | Path,
    output: str | Path,
    *,
    novel: Sequence[str] = (),
    val_share: float = 0.2,
    seed: int = 0,
) -> Path:
    """Write the files of a new set; returns its description.

    Args:
        name: the sets will be <name>_train and <name>_val.
        annotations: a COCO or LVIS file.
        images: the folder that its file names start from.
        output: folder for the description and the split files.
        novel: categories of the file to keep from training; spellings as in `find_names`.
        val_share: of the images that go to the validation set; 1 for no training set.
        seed: of the draw.

    Raises:
        DataError: a file that cannot be used, a novel name that it lacks, too few images.
    """
    output, content = Path(output), read_annotation_file(annotations)
    names = [c["name"].strip() for c in sorted(categories_by_name(content["categories"]).values(), key=_by_id)]
    unseen = set(category_ids(content["categories"], novel).values())
    kept_apart = [c["name"].strip() for c in sorted(content["categories"], key=_by_id) if c["id"] in unseen]
    description = {"name": name, "base": [n for n in names if n not in kept_apart], "novel": kept_apart}
    for split, part in zip(("train", "val"), split_by_images(content, val_share, seed=seed), strict=True):
        if part["images"]:
            write_json(output / f"{name}_{split}.json", part)
            where = os.path.relpath(images, output)
            description[split] = {"annotations": f"{name}_{split}.json", "images": where}
            print(f"{name}_{split}: {count(part)}")
    path = output / f"{name}.yaml"
    write_text(path, yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=120))
    return path


def _by_id(category: dict) -> int:
    return category["id"]
