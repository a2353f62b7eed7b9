"""Data sets in Detectron2's catalogs, with the vocabulary and its novel part as metadata.

Registering reads no annotation file: records come when they are asked for (`DatasetCatalog.get(name)`), and
with them the metadata that only the file can give, `thing_dataset_id_to_contiguous_id`.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...structures import BACKGROUND, ConfigurationError, DataError, Vocabulary
from ..vocabulary.published import read_class_list
from .annotations import load_annotations
from .catalog import register
from .semantic import register_semantic_dataset

_DESCRIPTION_KEYS = {"name", "base", "novel", "train", "val", "evaluator"}
_SPLIT_KEYS = {"annotations", "images"}
_SEMANTIC_KEYS = {"name", "classes", "novel", "ignore", "train", "val"}
_SEMANTIC_SPLIT_KEYS = {"labels", "images"}


def register_open_vocab_dataset(
    name: str,
    json_file: str | Path,
    image_root: str | Path,
    *,
    base: Sequence[str],
    novel: Sequence[str] = (),
    evaluator_type: str = "ov_coco",
    training: bool = False,
) -> None:
    """Register COCO- or LVIS-format annotations for open-vocabulary detection.

    Label i is the i-th name of `base` followed by `novel`, whatever order the file lists its categories in. A name
    registered before is registered anew.

    Metadata: thing_classes, base_classes, novel_classes, json_file, image_root, evaluator_type, training; after loading
    also thing_dataset_id_to_contiguous_id and, for LVIS files, class_frequency {name: "f" | "c" | "r"}.

    Args:
        base, novel: Class names as the file's categories have them.
        evaluator_type: Evaluator of the set, "ov_coco" or "ov_lvis".
        training: Boxes of novel classes are never given out, and the file need not know those classes.

    Raises:
        DataError: Names that are not unique; on loading, classes that the file's categories lack.
    """
    vocabulary = Vocabulary((*base, *novel), novel=novel)

    def load() -> list[dict]:
        loaded = load_annotations(json_file, image_root, vocabulary, base_only=training)
        metadata = MetadataCatalog.get(name)
        metadata.set(thing_dataset_id_to_contiguous_id=loaded.label_of)
        if loaded.frequency:
            metadata.set(class_frequency=loaded.frequency)
        return loaded.records

    register(
        name,
        load,
        thing_classes=list(vocabulary.names),
        base_classes=list(base),
        novel_classes=list(novel),
        json_file=str(json_file),
        image_root=str(image_root),
        evaluator_type=evaluator_type,
        training=training,
    )


def dataset_vocabulary(name: str, *, training: bool = False) -> Vocabulary:
    """The vocabulary of a registered open-vocabulary set.

    Args:
        name: Registered name of the set.
        training: The vocabulary to learn with: a semantic training set leaves out its novel classes, see
            `denserc.data.datasets.semantic`.

    Raises:
        DataError: The name is not registered, or without classes.
    """
    if name not in DatasetCatalog:
        raise DataError(f"No data set {name!r} is registered; registered are {sorted(DatasetCatalog.list())}.")
    metadata = MetadataCatalog.get(name)
    semantic = str(metadata.get("evaluator_type")).endswith("sem_seg")  # Detectron2's own sets have both kinds of names
    names = metadata.get("training_classes") if training else None
    names = names or metadata.get("text_classes") or metadata.get("stuff_classes" if semantic else "thing_classes")
    if names is None:
        DatasetCatalog.get(name)  # the error of an absent set names the remedy
        raise DataError(f"The data set {name!r} is registered without classes.")
    novel = [one for one in metadata.get("novel_classes", ()) if one != BACKGROUND]
    return Vocabulary(names, novel=[one for one in novel if one in names] if training else novel)


def register_from_yaml(path: str | Path) -> tuple[str, ...]:
    """Register one's own data from a short description; returns the names registered.

    Example (paths are relative to the description; "train" or "val" may be left out)::

        name: birds                  # registers birds_train and birds_val
        base: [sparrow, robin]       # or a file: a JSON list, or one name per line
        novel: [kingfisher]
        train: {annotations: train.json, images: images/train}
        val: {annotations: val.json, images: images/val}
        evaluator: ov_coco           # the default

    For semantic segmentation, "classes" takes the place of "base", and label files that of annotations.
    "background" may be one of the classes::

        name: street                 # registers street_train and street_val
        classes: [road, sky, tree]   # value k of the label files is the k-th, from 0; or a file, as above
        novel: [tree]                # kept from training, pixels and name; "unseen" in evaluation
        ignore: 255                  # the default
        train: {images: images/train, labels: labels/train}
        val: {images: images/val, labels: labels/val}

    Raises:
        ConfigurationError: A key that is unknown or missing.
        DataError: The description or a class list cannot be read.
    """
    path = Path(path)
    try:
        description = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"The data set description {path} cannot be read: {error}.") from error
    if isinstance(description, dict) and "classes" in description:
        return _register_semantic(path, description)
    _check_keys(path, description, known=_DESCRIPTION_KEYS, needed={"name", "base"})
    splits = [split for split in ("train", "val") if split in description]
    if not splits:
        raise ConfigurationError(f"{path} describes neither 'train' nor 'val'.")
    base, novel = (_names(path, key, description.get(key, [])) for key in ("base", "novel"))
    names = []
    for split in splits:
        files = description[split]
        _check_keys(path, files, known=_SPLIT_KEYS, needed=_SPLIT_KEYS)
        names.append(f"{description['name']}_{split}")
        register_open_vocab_dataset(
            names[-1],
            path.parent / files["annotations"],
            path.parent / files["images"],
            base=base,
            novel=novel,
            evaluator_type=description.get("evaluator", "ov_coco"),
            training=split == "train",
        )
    return tuple(names)


def _register_semantic(path: Path, description: dict) -> tuple[str, ...]:
    """Register the sets of a description with "classes"."""
    _check_keys(path, description, known=_SEMANTIC_KEYS, needed={"name", "classes"})
    splits = [split for split in ("train", "val") if split in description]
    if not splits:
        raise ConfigurationError(f"{path} describes neither 'train' nor 'val'.")
    ignore = description.get("ignore", 255)
    if not isinstance(ignore, int) or isinstance(ignore, bool) or ignore < 0:
        raise ConfigurationError(f"{path}: 'ignore' must be a value of the label files, 0 or more; got {ignore!r}.")
    classes, novel = (_names(path, key, description.get(key, [])) for key in ("classes", "novel"))
    for split in splits:
        folders = description[split]
        _check_keys(path, folders, known=_SEMANTIC_SPLIT_KEYS, needed=_SEMANTIC_SPLIT_KEYS)
        register_semantic_dataset(
            f"{description['name']}_{split}",
            path.parent / folders["images"],
            path.parent / folders["labels"],
            classes=classes,
            novel=novel,
            ignore_label=ignore,
            training=split == "train",
        )
    return tuple(f"{description['name']}_{split}" for split in splits)


def _names(path: Path, key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return read_class_list(path.parent / value)
    if not isinstance(value, list):
        raise ConfigurationError(f"{path}: {key!r} must be a list of class names, or a file of them; got {value!r}.")
    # YAML reads yes, no, on and off as truth values, 1 and 2.5 as numbers.
    wrong = [name for name in value if not isinstance(name, str)]
    if wrong:
        raise ConfigurationError(f"{path}: {key!r} has {wrong}, which YAML reads as no text. Put quotes around it.")
    return tuple(value)


def _check_keys(path: Path, mapping: object, known: set[str], needed: set[str]) -> None:
    given = set(mapping) if isinstance(mapping, dict) else set()
    if not isinstance(mapping, dict) or given - known or needed - given:
        raise ConfigurationError(
            f"{path}: expected a mapping with the keys {sorted(known)}, at least {sorted(needed)}; got "
            f"{sorted(map(str, given)) if isinstance(mapping, dict) else mapping!r}."
        )
