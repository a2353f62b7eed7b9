"""A folder of images and its annotations become a described data set (`denserc dataset new`)."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from ..data.datasets.entries import read_annotations
from ..data.datasets.image_lists import image_path
from ..data.datasets.semantic import LABEL_SUFFIXES, files_by_stem
from ..data.datasets.semantic_files import LabelJob, instance_jobs, panoptic_jobs, write_label_files
from ..data.datasets.splits import count, drawn_ids, split_by_images
from ..data.images.labels import read_labels
from ..data.vocabulary.names import categories_by_name, category_ids
from ..structures import ConfigurationError, DataError, Vocabulary
from ..structures.files import read_annotation_file, write_json, write_text
from ..structures.records import short


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
        name: The sets will be <name>_train and <name>_val.
        annotations: A COCO or LVIS file.
        images: The folder that its file names start from.
        output: Folder for the description and the split files.
        novel: Categories of the file to keep from training; spellings as in `find_names`.
        val_share: Share of the images that go to the validation set; 1 for no training set.
        seed: Seed of the draw.

    Raises:
        DataError: A file that cannot be used, a novel name that it lacks, too few images, or none in their folder.
    """
    _require_folder(images)
    output, content = Path(output), read_annotations(annotations, images)
    paths = [image_path(image, Path(images)) for image in content["images"]]
    if not any(map(os.path.isfile, paths)):
        first = f", such as {paths[0]}" if paths else ""
        raise DataError(
            f"{annotations}: none of its {len(paths)} images is in {images}{first}. Give the folder that its file "
            "names start from."
        )
    names = [c["name"].strip() for c in sorted(categories_by_name(content["categories"]).values(), key=_by_id)]
    unseen = set(category_ids(content["categories"], novel, where=annotations).values())
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


def new_semantic_set(
    name: str,
    images: str | Path,
    output: str | Path,
    *,
    labels: str | Path = "",
    classes: Sequence[str] = (),
    panoptic: str | Path = "",
    masks: str | Path = "",
    instances: str | Path = "",
    background: bool = False,
    ignore: int | None = None,
    novel: Sequence[str] = (),
    val_share: float = 0.2,
    seed: int = 0,
) -> Path:
    """Write the label files of a new semantic set, split in two, and their description; returns the description.

    Label files come from one of `labels`, `panoptic` and `instances`. They are written to <output>/<name>_train and
    <output>/<name>_val; images stay where they are.

    Args:
        name: The sets will be <name>_train and <name>_val.
        images: Folder of the images.
        output: Folder for the description and the label files.
        labels: Folder of label files with the images' names; value k is the k-th class.
        classes: Their names, in the order of the values.
        panoptic: COCO panoptic JSON; its PNG files are in `masks`.
        instances: COCO or LVIS instance JSON with masks.
        background: With `instances`, True labels pixels without an object "background"; False ignores them.
        ignore: Value of ignored pixels; None for 255, or 65535 where there are more than 255 classes.
        novel: Classes to keep from training.
        val_share: Share of the label files for the validation set; 1 for no training set.
        seed: Seed of the draw.

    Raises:
        ConfigurationError: Not one source, or options that do not belong to it.
        DataError: Files that cannot be used, a novel name that is not a class, too few images.
    """
    if sum(map(bool, (labels, panoptic, instances))) != 1:
        raise ConfigurationError("Give one source of label files: --labels, --panoptic or --instances.")
    if bool(labels) != bool(classes) or bool(panoptic) != bool(masks) or (background and not instances):
        raise ConfigurationError(
            "--labels needs --classes, --panoptic needs --masks, --background belongs to --instances; and no other way."
        )
    _require_folder(images)
    output = Path(output)
    if labels:
        jobs, names = _label_jobs(labels, output), tuple(classes)
        ignore = _ignore_label(ignore, len(names))
    else:
        source = Path(panoptic or instances)
        categories = read_annotation_file(source)["categories"]
        if not isinstance(categories, list):
            text = f"{source}: 'categories' is {short(categories)}; expected is a list"
            raise DataError(f"{text}. Export the file again.")
        ignore = _ignore_label(ignore, len(categories) + background)
        if panoptic:
            jobs, names = panoptic_jobs(source, Path(masks), Path(images), output, ignore)
        else:
            jobs, names = instance_jobs(source, output, ignore, background=background)
    Vocabulary(names, novel=novel)
    if not len(names) <= ignore <= 65535:
        raise ConfigurationError(
            f"--ignore must be within {len(names)}..65535, for {len(names)} classes; got {ignore}."
        )
    description: dict = {"name": name, "classes": list(names), "novel": list(novel), "ignore": ignore}
    stems = {job.out.relative_to(output).as_posix(): job for job in jobs}
    in_val = drawn_ids(sorted(stems), val_share, seed=seed)
    parts = {"train": set(stems) - in_val, "val": in_val}
    for split, kept in parts.items():
        _refuse_others(output / f"{name}_{split}", kept)
    for split, kept in parts.items():
        if not kept:
            continue
        folder = f"{name}_{split}"
        part = [replace(stems[stem], out=output / folder / stem) for stem in sorted(kept)]
        found = write_label_files(part, expected=None, title=folder)
        description[split] = {"images": os.path.relpath(images, output), "labels": folder}
        print(f"{folder}: {found.files:,} label files, {found.present(len(names))} of {len(names)} classes present")
    path = output / f"{name}.yaml"
    write_text(path, yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=120))
    return path


def _require_folder(images: str | Path) -> None:
    if not os.path.isdir(images):
        raise DataError(f"The image folder {images} does not exist. Give the folder that the file names start from.")


def _label_jobs(labels: str | Path, output: Path) -> list[LabelJob]:
    files = files_by_stem(labels, LABEL_SUFFIXES)
    if not files:
        raise DataError(f"{labels} has no label files (PNG or TIFF).")
    return [
        LabelJob(output / f"{stem}{Path(file).suffix}", lambda file=file: read_labels(file))
        for stem, file in files.items()
    ]


def _refuse_others(folder: Path, files: set[str]) -> None:
    """Refuse files of another split, as every label file of a folder belongs to its set."""
    others = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    others = [file for file in others if file not in files]
    if others:
        raise DataError(
            f"{folder} has files that do not belong to this split, such as {others[0]} ({len(others)} in all): remove "
            "the folder, or use another name."
        )


def _ignore_label(given: int | None, count: int) -> int:
    return given if given is not None else 255 if count <= 255 else 65535  # 0..254 are classes


def _by_id(category: dict) -> int:
    return category["id"]
