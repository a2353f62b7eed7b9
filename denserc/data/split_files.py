"""The split files as they lie on disk: derived from annotation files, written beside the classes they follow."""

from pathlib import Path

from ..structures import DataError, Vocabulary
from .json_files import read_annotation_file, write_json
from .splits import SplitCounts, count, lvis_norare_split, ov_train_split, ov_val_split

OV_COCO_TRAIN = "instances_train2017_base.json"
OV_COCO_VAL = "instances_val2017_all.json"
CLASSES = "classes.json"


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
        out: folder for instances_train2017_base.json, instances_val2017_all.json and classes.json.
        vocabulary: its novel part is what training must not see.
        train_json, val_json: the complete annotation files; None leaves that split out.
        expected_train_images, expected_val_images: asserted before anything of that split is written.

    Returns:
        {file name: counts} of the files written.

    Raises:
        DataError: a file that cannot be used, a class that it lacks, counts that differ from those expected.
    """
    out = Path(out)
    counts = {}
    for json_file, derive, name, expected in (
        (train_json, ov_train_split, OV_COCO_TRAIN, expected_train_images),
        (val_json, ov_val_split, OV_COCO_VAL, expected_val_images),
    ):
        if json_file is None:
            continue
        split = derive(read_annotation_file(json_file), vocabulary)
        counts[name] = count(split)
        counts[name].require(images=expected, what=f"{name} from {json_file}")
        write_json(out / name, split)
    write_json(out / CLASSES, class_lists(vocabulary))
    return counts


def write_lvis_norare(
    out_file: str | Path, train_json: str | Path, *, expected_images: int | None = None
) -> SplitCounts:
    """Write an LVIS training file without the annotations of rare classes; returns its counts."""
    split = lvis_norare_split(read_annotation_file(train_json))
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
    content = read_annotation_file(path, keys=("base", "novel"))
    if not all(isinstance(content[key], list) for key in ("base", "novel")):
        raise DataError(f'{path} must hold the lists "base" and "novel".')
    return Vocabulary((*content["base"], *content["novel"]), novel=content["novel"])
