"""Open-vocabulary splits derived from annotation files of the COCO family, and the commands that write them.

Classes are matched by name. The published OV-COCO split has 48 base and 17 novel classes: train has 107,761 images with
base annotations only, val has the 4,836 images that show at least one of the 65 classes. Crowd regions count as
annotations and stay flagged, as in the split's original derivation. OV-LVIS: train without the annotations of rare
classes, with all 100,170 images.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...structures import DataError, Vocabulary
from ...structures.files import read_annotation_file, write_json
from ...structures.records import Record
from ..vocabulary.names import categories_by_name, category_ids
from .entries import read_annotations

OFFICIAL_TRAIN_IMAGES = 107_761
OFFICIAL_VAL_IMAGES = 4_836
OFFICIAL_LVIS_TRAIN_IMAGES = 100_170
OFFICIAL_LVIS_VAL_IMAGES = 19_809
OV_COCO_TRAIN = "instances_train2017_base.json"
OV_COCO_VAL = "instances_val2017_all.json"
CLASSES = "classes.json"


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a split file.

    Args:
        images: Number of images.
        annotations: Number of annotations, crowds among them.
        crowds: Number of annotations that are crowd regions.
        per_class: Annotations per class name, classes without any included.
    """

    images: int
    annotations: int
    crowds: int
    per_class: dict[str, int]

    def require(self, *, images: int | None = None, annotations: int | None = None, what: str = "the split") -> None:
        """DataError, with the count found and the one expected, unless they are equal (None: not checked)."""
        for kind, found, expected in (("images", self.images, images), ("annotations", self.annotations, annotations)):
            if expected is not None and found != expected:
                raise DataError(
                    f"{what} has {found:,} {kind}, but {expected:,} were expected. "
                    "Was it derived from the complete official annotation file?"
                )

    def __str__(self) -> str:
        present = sum(count > 0 for count in self.per_class.values())
        return (
            f"{self.images:,} images, {self.annotations:,} annotations ({self.crowds:,} crowds), "
            f"{present} of {len(self.per_class)} classes present"
        )


def ov_train_split(coco: dict, vocabulary: Vocabulary) -> dict:
    """The training file: only annotations of base classes, and the images that have any.

    All classes of the vocabulary stay in "categories", so that train and val number them equally; category ids and
    everything else are kept as they are.

    Args:
        coco: The content of a COCO instances file.

    Raises:
        DataError: A class of the vocabulary is not among the file's categories.
    """
    return _subset(coco, vocabulary, annotated=vocabulary.base)


def ov_val_split(coco: dict, vocabulary: Vocabulary) -> dict:
    """The evaluation file: annotations of all classes of the vocabulary, and the images that have any."""
    return _subset(coco, vocabulary, annotated=vocabulary.names)


def lvis_norare_split(lvis: dict) -> dict:
    """LVIS without the annotations of rare classes; all images and categories stay.

    Raises:
        DataError: The categories carry no "frequency".
    """
    _check_keys(lvis)
    if not all(c.get("frequency") in ("f", "c", "r") for c in lvis["categories"]):
        raise DataError('The categories carry no "frequency" of "f", "c" or "r"; is this an LVIS annotation file?')
    rare = {c["id"] for c in lvis["categories"] if c["frequency"] == "r"}
    return {**lvis, "annotations": [a for a in lvis["annotations"] if a["category_id"] not in rare]}


def split_by_images(coco: dict, val_share: float, *, seed: int = 0) -> tuple[dict, dict]:
    """A training and a validation file from one: images are drawn at random, categories stay the same in both.

    Args:
        val_share: Share of the images that go to the validation file, 0 to 1. At least one image goes there where it is
            above 0, and at least one stays where it is below 1.
        seed: Seed of the draw; the order of the images in the file does not matter.

    Raises:
        DataError: The share is not within 0 and 1, or the file has too few images.
    """
    _check_keys(coco)
    drawn = drawn_ids(sorted((image["id"] for image in coco["images"]), key=str), val_share, seed=seed)

    def part(in_val: bool) -> dict:
        return {
            **coco,
            "images": [image for image in coco["images"] if (image["id"] in drawn) == in_val],
            "annotations": [a for a in coco["annotations"] if (a["image_id"] in drawn) == in_val],
        }

    return part(False), part(True)


def drawn_ids(ids: Sequence, val_share: float, *, seed: int = 0) -> set:
    """Draw the ids of the validation set; see `split_by_images`.

    Raises:
        DataError: The share is not within 0 and 1, or there are too few ids.
    """
    if not 0 <= val_share <= 1:
        raise DataError(f"The share of validation images lies between 0 and 1; got {val_share}.")
    if 0 < val_share < 1 and len(ids) < 2:
        raise DataError(f"{len(ids)} images cannot be split in two.")
    number = round(val_share * len(ids))
    if 0 < val_share < 1:
        number = min(max(number, 1), len(ids) - 1)
    return {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:number]}


def count(coco: dict) -> SplitCounts:
    """The counts of an annotation file."""
    _check_keys(coco)
    per_id = Counter(a["category_id"] for a in coco["annotations"])
    return SplitCounts(
        images=len(coco["images"]),
        annotations=len(coco["annotations"]),
        crowds=sum(bool(a.get("iscrowd", 0)) for a in coco["annotations"]),
        per_class={name: per_id[c["id"]] for name, c in categories_by_name(coco["categories"]).items()},
    )


def _subset(coco: dict, vocabulary: Vocabulary, annotated: Iterable[str]) -> dict:
    _check_keys(coco)
    ids = category_ids(coco["categories"], vocabulary.names)
    kept = set(ids.values())
    wanted = {ids[name] for name in annotated}
    annotations = [a for a in coco["annotations"] if a["category_id"] in wanted]
    shown = {a["image_id"] for a in annotations}
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in shown],
        "annotations": annotations,
        "categories": sorted((c for c in coco["categories"] if c["id"] in kept), key=lambda c: c["id"]),
    }


def _check_keys(coco: dict, keys: Sequence[str] = ("images", "annotations", "categories")) -> None:
    absent = [key for key in keys if not isinstance(coco, dict) or not isinstance(coco.get(key), list)]
    if absent:
        raise DataError(f"An annotation file of the COCO family needs the lists {list(keys)}; absent: {absent}.")


def write_ov_coco_splits(
    out: str | Path,
    vocabulary: Vocabulary,
    *,
    train_json: str | Path | None = None,
    val_json: str | Path | None = None,
    expected_train_images: int | None = None,
    expected_val_images: int | None = None,
) -> dict[str, SplitCounts]:
    """Derive the open-vocabulary files from COCO instances files and write them with the classes.

    Args:
        out: Folder for instances_train2017_base.json, instances_val2017_all.json and classes.json.
        vocabulary: Vocabulary whose novel part is kept from training.
        train_json, val_json: The complete annotation files; None leaves that split out.
        expected_train_images, expected_val_images: Numbers of images, checked before anything is written.

    Returns:
        {file name: counts} of the files written.

    Raises:
        DataError: A file that cannot be used, a class that it lacks, counts that differ from those expected.
    """
    out = Path(out)
    splits, counts = {}, {}
    for json_file, derive, name, expected in (
        (train_json, ov_train_split, OV_COCO_TRAIN, expected_train_images),
        (val_json, ov_val_split, OV_COCO_VAL, expected_val_images),
    ):
        if json_file is None:
            continue
        splits[name] = derive(read_annotations(json_file), vocabulary)
        counts[name] = count(splits[name])
        counts[name].require(images=expected, what=f"{name} from {json_file}")
    for name, split in splits.items():
        write_json(out / name, split)
    write_json(out / CLASSES, class_lists(vocabulary))
    return counts


def write_lvis_norare(
    out_file: str | Path, train_json: str | Path, *, expected_images: int | None = None
) -> SplitCounts:
    """Write an LVIS training file without the annotations of rare classes; returns its counts."""
    split = lvis_norare_split(read_annotations(train_json))
    counts = count(split)
    counts.require(images=expected_images, what=f"{out_file} from {train_json}")
    write_json(out_file, split)
    return counts


def class_lists(vocabulary: Vocabulary) -> dict[str, list[str]]:
    """{"base": names, "novel": names} in the vocabulary's order."""
    return {
        "base": [name for name in vocabulary.names if name not in vocabulary.novel],
        "novel": [name for name in vocabulary.names if name in vocabulary.novel],
    }


def read_classes(path: str | Path) -> Vocabulary:
    """The vocabulary of a classes.json: base names, then novel ones."""
    content = Record(str(path), read_annotation_file(path, keys=("base", "novel")))
    for key in ("base", "novel"):
        if not all(isinstance(name, str) for name in content.list(key)):
            raise content.fault(key, "a list of class names")
    base, novel = content.list("base"), content.list("novel")
    try:
        return Vocabulary((*base, *novel), novel=novel)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
