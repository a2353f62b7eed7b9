"""Semantic sets: label files with an image of the same name and size, and with values that are classes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from ...structures import BACKGROUND, DataError, Vocabulary
from ..datasets.image_lists import IMAGE_SUFFIXES, Spread
from ..datasets.registration import dataset_vocabulary
from ..datasets.semantic import EVALUATOR, LABEL_SUFFIXES, SEMANTIC_SETS, files_by_stem
from ..images.labels import read_labels
from ..images.reading import read_rgb
from ..vocabulary.texts import same_texts
from .categories import names_without_words
from .finding import Finding, Severity, found

_LONG_JOB = 200
_MORE_THAN_8_BITS = 256


@dataclass(frozen=True)
class CheckedLabels:
    """A folder of images and one of label files, with their registration.

    Args:
        name: Name of the set.
        image_of: {path below the folder, without suffix: image}.
        label_of: The same of label files.
        image_root, label_root: Folders of the images and of the label files.
        classes: Class k is value k of the label files.
        ignore_label: Value that is not scored.
        vocabulary: Classes that a model is asked with.
        training: True for a training set.
        expected: Published number of label files; 0 if there is none.
        may_be_fewer: Accept fewer than `expected`.
    """

    name: str
    image_of: dict[str, str]
    label_of: dict[str, str]
    image_root: Path
    label_root: Path
    classes: tuple[str, ...]
    ignore_label: int
    vocabulary: Vocabulary
    training: bool = False
    expected: int = 0
    may_be_fewer: bool = False

    asks_background: ClassVar[bool] = False

    @staticmethod
    def is_kind_of(name: str) -> bool:
        """True for a registered semantic set in folders."""
        metadata = MetadataCatalog.get(name)
        return metadata.get("evaluator_type") == EVALUATOR and metadata.get("sem_seg_root") is not None

    @staticmethod
    def registered(name: str) -> "CheckedLabels":
        """A registered set; DataError where it is not registered."""
        vocabulary, metadata = dataset_vocabulary(name), MetadataCatalog.get(name)
        published = next((one for one in SEMANTIC_SETS if one.name == name), None)
        return CheckedLabels(
            name,
            files_by_stem(metadata.image_root, IMAGE_SUFFIXES),
            files_by_stem(metadata.sem_seg_root, LABEL_SUFFIXES),
            Path(metadata.image_root),
            Path(metadata.sem_seg_root),
            tuple(metadata.stuff_classes),
            metadata.ignore_label,
            vocabulary,
            metadata.get("training", False),
            published.count if published else 0,
            published.may_be_fewer if published else False,
        )

    @property
    def images(self) -> list[str]:
        """Keys of the images that have labels."""
        return [stem for stem in self.label_of if stem in self.image_of]

    def path(self, image: str) -> Path:
        """Path of an image."""
        return Path(self.image_of[image])

    @property
    def summary(self) -> str:
        """The set's size in words."""
        return (
            f"{len(self.images):,} images with label files, {len(self.classes)} classes "
            f"({len(self.vocabulary.novel)} novel)"
        )


def check_labels(checked: CheckedLabels, sample: int = 0) -> list[Finding]:
    """All checks of a semantic set.

    Args:
        sample: Number of images and label files to read, spread evenly over the set; 0 for all.
    """
    findings = _check_pairs(checked) + _check_names(checked)
    return findings if not checked.images else findings + _check_contents(checked, sample)


def _check_pairs(checked: CheckedLabels) -> list[Finding]:
    advice = "datasets/README.md shows where files belong and which script prepares them."
    folders = ((checked.image_root, checked.image_of), (checked.label_root, checked.label_of))
    empty = [str(folder) for folder, files in folders if not files]
    if empty:
        return found("no-files", Severity.ERROR, "folders without images or label files", advice, empty)
    alone = [path for stem, path in checked.label_of.items() if stem not in checked.image_of]
    bare = [path for stem, path in checked.image_of.items() if stem not in checked.label_of]
    number = len(checked.label_of)
    fewer = checked.expected and (number > checked.expected or (number < checked.expected and not checked.may_be_fewer))
    return [
        *found("label-without-image", Severity.ERROR, "label files without an image of the same name",
               "Name label files as their images, but for the suffix; or remove them.", alone),
        *found("image-without-label", Severity.NOTE, "images without a label file",
               "Nothing: they are not used.", bare),
        *found("label-count", Severity.ERROR, "another number of label files than the published set has", advice,
               [f"{number:,} instead of {checked.expected:,}"] if fewer else []),
    ]  # fmt: skip


def _check_names(checked: CheckedLabels) -> list[Finding]:
    inside = checked.ignore_label < len(checked.classes)
    return [
        *found("class-no-word", Severity.WARNING, "class names that mean nothing to a text encoder",
               "Name the class in words.", names_without_words(checked.vocabulary.names)),
        *found("class-texts-same", Severity.WARNING, "classes that are one text to the text encoder",
               "Merge or rename them: the encoder cannot tell them apart.",
               [" = ".join(map(repr, group)) for group in same_texts(checked.vocabulary.names)]),
        *found("ignore-is-class", Severity.ERROR, "the ignore label is the value of a class, which is never scored",
               'Set "ignore" to a value that no class has.',
               [f"{checked.ignore_label}: {checked.classes[checked.ignore_label]!r}"] if inside else []),
    ]  # fmt: skip


def _check_contents(checked: CheckedLabels, sample: int) -> list[Finding]:
    """Read images and label files."""
    unreadable, rotated, other_size, unlabeled, unknown = [], [], [], [], Counter()
    example: dict[int, str] = {}
    pixels, eight_bit, read = np.zeros(len(checked.classes), dtype=np.int64), 0, 0
    chosen = Spread(checked.images, sample)
    for stem in tqdm(chosen, desc=f"read {checked.name}", disable=len(chosen) < _LONG_JOB):
        label = checked.label_of[stem]
        try:
            labels, size = read_labels(label), read_rgb(checked.path(stem)).shape[:2]
        except DataError as error:
            unreadable.append(error)
            continue
        read += 1
        eight_bit += labels.dtype == np.uint8
        if size != labels.shape:
            (rotated if size == labels.shape[::-1] else other_size).append(
                f"{label}: {labels.shape} (h, w), image {size}"
            )
        values, counts = np.unique(labels, return_counts=True)
        scored = (values >= 0) & (values < len(checked.classes)) & (values != checked.ignore_label)
        pixels[values[scored]] += counts[scored]
        if not scored.any():
            unlabeled.append(label)
        for value in values[~scored & (values != checked.ignore_label)].tolist():
            unknown[value] += 1
            example.setdefault(value, label)
    whole = read == len(checked.label_of)
    never = [repr(name) for name, count in zip(checked.classes, pixels, strict=True) if not count]
    return [
        *found("label-unreadable", Severity.ERROR, "images or label files that cannot be read",
               "Write or download them again; label files have one channel of 8 or 16 bits.", unreadable),
        *found("label-rotated", Severity.ERROR, "label files whose height and width are exchanged with the image's",
               "Label images upright: EXIF rotation was ignored. Or remove the EXIF tag.", rotated),
        *found("label-size", Severity.ERROR, "label files of another size than their images",
               "Use the images that were labeled, or resize label files by nearest neighbor.", other_size),
        *_unknown_values(checked, unknown, example, pixels),
        *found("label-bits", Severity.ERROR, f"8-bit label files for {len(checked.classes)} classes",
               "Write 16 bits, as TIFF or PNG; a conversion to 8 bits has destroyed the values.",
               [f"{eight_bit} of {read}"] if len(checked.classes) > _MORE_THAN_8_BITS and eight_bit else []),
        *found("label-empty", Severity.WARNING, "label files without any scored pixel",
               "Remove them: nothing is learned or measured there.", unlabeled),
        *found("class-empty", Severity.WARNING if whole else Severity.NOTE,
               "classes without a pixel" + ("" if whole else f" in the {read} files read")
               + "; TEST.SEM_SEG_PROTOCOLS decides how they count", "Nothing, if that is known.", never),
        *found("background-absent", Severity.ERROR, "no file has a pixel of background: another variant of the labels",
               "Prepare the set with background, or register it without.",
               [BACKGROUND] if read and BACKGROUND in checked.classes
               and not pixels[checked.classes.index(BACKGROUND)] else []),
    ]  # fmt: skip


def _unknown_values(
    checked: CheckedLabels, unknown: Counter, example: dict[int, str], pixels: np.ndarray
) -> list[Finding]:
    """Values that are neither a class nor ignored, with the likely cause."""
    count = len(checked.classes)
    advice = "Map these values to classes or to the ignore label, or name their classes."
    if set(unknown) == {count} and not pixels[0]:
        advice = "The values seem to count from 1: subtract 1, with 0 as the ignore label."
    elif set(unknown) == {255}:
        advice = 'The files seem to ignore 255: set "ignore" to 255.'
    return found(
        "label-value", Severity.ERROR,
        f"values that are neither a class (0..{count - 1}) nor the ignore label {checked.ignore_label}", advice,
        [f"{value}: in {files} files, e.g. {example[value]}" for value, files in sorted(unknown.items())],
    )  # fmt: skip
