"""Data sets in Detectron2's catalogs, with the vocabulary and its novel part as metadata.

Registering reads no annotation file: records come when they are asked for (`DatasetCatalog.get(name)`), and
with them the metadata that only the file can give, `thing_dataset_id_to_contiguous_id`.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...structures import BACKGROUND, ConfigurationError, DataError, Vocabulary, class_names
from ...structures.records import short
from ...structures.yaml_files import read_yaml
from ..vocabulary.published import read_class_list
from .annotations import load_annotations
from .catalog import register
from .semantic import register_semantic_dataset

_SET_NAME = re.compile(r"[^/\\\0]*[^/\\\0\s][^/\\\0]*")
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
    _require_registered(name)
    metadata = MetadataCatalog.get(name)
    semantic = str(metadata.get("evaluator_type")).endswith("sem_seg")  # Detectron2's own sets have both kinds of names
    names = metadata.get("training_classes") if training else None
    names = names or metadata.get("text_classes") or metadata.get("stuff_classes" if semantic else "thing_classes")
    if names is None:
        DatasetCatalog.get(name)  # the error of an absent set names the remedy
        raise DataError(f"The data set {name!r} is registered without classes.")
    novel = [one for one in metadata.get("novel_classes", ()) if one != BACKGROUND]
    return Vocabulary(names, novel=[one for one in novel if one in names] if training else novel)


def dataset_records(name: str) -> list[dict]:
    """The records of a registered set.

    Raises:
        DataError: The name is not registered; or its files are absent or broken.
    """
    _require_registered(name)
    return DatasetCatalog.get(name)


def _require_registered(name: str) -> None:
    if name not in DatasetCatalog:
        known = DatasetCatalog.list()
        near = get_close_matches(name, known, n=1)
        raise DataError(
            f"No data set {name!r} is registered, of {len(known)}; "
            f"the nearest: {repr(near[0]) if near else 'none is like it'}. "
            "DATASETS.REGISTER names descriptions of own sets (datasets/README.md)."
        )


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
        ConfigurationError: A key that is unknown or missing, or has a value of another type.
        DataError: The description or a class list cannot be read.
    """
    path = Path(path)
    description = _Description(path, read_yaml(path, "data set description"))
    if "classes" in description.fields:
        return _register_semantic(description)
    description.require_keys(known=_DESCRIPTION_KEYS, needed={"name", "base"})
    base, novel = description.class_names("base"), description.class_names("novel")
    evaluator = description.choice("evaluator", ("ov_coco", "ov_lvis"), default="ov_coco")
    splits = {split: part.paths(_SPLIT_KEYS) for split, part in description.splits()}
    for split, paths in splits.items():
        register_open_vocab_dataset(
            f"{description.name()}_{split}",
            paths["annotations"],
            paths["images"],
            base=base,
            novel=novel,
            evaluator_type=evaluator,
            training=split == "train",
        )
    return tuple(f"{description.name()}_{split}" for split in splits)


def _register_semantic(description: "_Description") -> tuple[str, ...]:
    """Register the sets of a description with "classes"."""
    description.require_keys(known=_SEMANTIC_KEYS, needed={"name", "classes"})
    ignore = description.fields.get("ignore", 255)
    if not isinstance(ignore, int) or isinstance(ignore, bool) or not 0 <= ignore <= 65535:
        raise description.fault("ignore", "a value of the label files, 0 to 65535")
    classes, novel = description.class_names("classes"), description.class_names("novel")
    splits = {split: part.paths(_SEMANTIC_SPLIT_KEYS) for split, part in description.splits()}
    for split, paths in splits.items():
        register_semantic_dataset(
            f"{description.name()}_{split}",
            paths["images"],
            paths["labels"],
            classes=classes,
            novel=novel,
            ignore_label=ignore,
            training=split == "train",
        )
    return tuple(f"{description.name()}_{split}" for split in splits)


class _Description:
    """A mapping of a description, whose faults name the file and the key.

    Args:
        path: File of the description, for messages; paths in it are relative to its folder.
        fields: Content.
        prefix: Key of the mapping within the file, with a dot; "" for the file itself.

    Raises:
        ConfigurationError: The content is not a mapping.
    """

    def __init__(self, path: Path, fields: object, prefix: str = ""):
        self.path, self.prefix = path, prefix
        if not isinstance(fields, dict):
            where = f"{path}: {prefix[:-1]!r}" if prefix else f"{path}"
            given = "empty" if fields is None else short(fields)
            raise ConfigurationError(f"{where} is {given}; expected is a mapping, such as 'name: birds'.")
        self.fields = fields

    def fault(self, key: str, expected: str) -> ConfigurationError:
        """The error of a key with a wrong value."""
        given = short(self.fields[key]) if key in self.fields else "absent"
        return ConfigurationError(f"{self.path}: '{self.prefix}{key}' is {given}; expected is {expected}.")

    def require_keys(self, known: set[str], needed: set[str]) -> None:
        """Refuse unknown keys, with the nearest known one, and absent ones."""
        for key in self.fields:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                raise ConfigurationError(
                    f"{self.path}: there is no key '{self.prefix}{key}'."
                    + (f" The nearest is {near[0]!r}." if near else "")
                    + f" Known are {', '.join(sorted(known))}."
                )
        for key in sorted(needed - set(self.fields)):
            raise self.fault(key, f"a value; needed are {', '.join(sorted(needed))}")

    def name(self) -> str:
        """The name of the sets."""
        name = self.fields["name"]
        if not isinstance(name, str) or not _SET_NAME.fullmatch(name):
            raise self.fault("name", "a text without / that names a folder too; put quotes around a number")
        return name

    def choice(self, key: str, legal: tuple[str, ...], *, default: str) -> str:
        """A key with one of several words."""
        value = self.fields.get(key, default)
        if value not in legal:
            raise self.fault(key, " or ".join(map(repr, legal)))
        return value

    def class_names(self, key: str) -> tuple[str, ...]:
        """A list of class names, or those of a file that the key names; () for an absent key."""
        value = self.fields.get(key, [])
        if isinstance(value, str) and value.strip():
            return read_class_list(self._path(key, value))
        if not isinstance(value, list):
            raise self.fault(key, "a list of class names, or the path of a file of them")
        # YAML reads yes, no, on and off as truth values, 1 and 2.5 as numbers.
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            raise ConfigurationError(
                f"{self.path}: '{self.prefix}{key}' has {short(wrong)}, which YAML reads as no text. Put quotes around "
                "it."
            )
        return class_names(value, f"{self.path}: the classes of '{self.prefix}{key}'")

    def splits(self) -> list[tuple[str, "_Description"]]:
        """The described splits, at least one of train and val."""
        self.name()
        found = [split for split in ("train", "val") if split in self.fields]
        if not found:
            raise ConfigurationError(f"{self.path} describes neither 'train' nor 'val'.")
        return [(split, _Description(self.path, self.fields[split], f"{split}.")) for split in found]

    def paths(self, keys: set[str]) -> dict[str, Path]:
        """The paths of a split, all of which must be there."""
        self.require_keys(known=keys, needed=keys)
        return {key: self._path(key, self.fields[key]) for key in sorted(keys)}

    def _path(self, key: str, value: object) -> Path:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self.fault(key, "the path of a file or folder, a text")
        if "://" in value:
            raise self.fault(key, "a local path; download it first")
        return self.path.parent / value
