"""The data sets that checks read, and the findings that they report."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from detectron2.data import MetadataCatalog

from ...structures import DataError, Vocabulary
from ...structures.files import read_annotation_file
from ...structures.records import short
from ..datasets.entries import Inspection, inspect_content
from ..datasets.image_lists import image_path
from ..datasets.registration import dataset_vocabulary

_EXAMPLES = 5


class Severity(Enum):
    """Severity of a finding."""

    ERROR = "error"  # training or evaluation fails, or its numbers are wrong
    WARNING = "warning"  # may be meant, but seldom is
    NOTE = "note"  # good to know


@dataclass(frozen=True)
class Finding:
    """One kind of fault, with its number and some examples.

    Args:
        check: A short name, e.g. "boxes-outside".
        severity: See Severity.
        message: Description of the fault.
        advice: Remedy for the finding.
        count: Number of cases.
        examples: Text of some of the entries.
    """

    check: str
    severity: Severity
    message: str
    advice: str
    count: int = 1
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return {**vars(self), "severity": self.severity.value, "examples": list(self.examples)}


def found(check: str, severity: Severity, message: str, advice: str, cases: Iterable[object]) -> list[Finding]:
    """Build a finding of all cases, with the first of them as examples; an empty list without cases."""
    cases = list(cases)
    if not cases:
        return []
    return [Finding(check, severity, message, advice, len(cases), printable(cases[:_EXAMPLES]))]


def printable(cases: Iterable[object]) -> tuple[str, ...]:
    """Text of some cases; a lone surrogate, as in a damaged name, becomes an escape."""
    return tuple(str(case).encode("utf-8", "backslashreplace").decode() for case in cases)


@dataclass(frozen=True)
class CheckedSet:
    """An annotation file and its registration.

    Args:
        name: Name of the set.
        content: Content of its COCO or LVIS file as it was read: images, annotations, categories.
        image_root: Folder of its images.
        vocabulary: The classes it is used with.
        training: True for a training set, whose boxes of novel classes are left out.
        evaluator: Type of its evaluator, such as "ov_lvis"; "" if that is not known.
    """

    name: str
    content: dict
    image_root: Path
    vocabulary: Vocabulary
    training: bool = False
    evaluator: str = ""

    asks_background: ClassVar[bool] = True  # "background" needs a text embedding too

    @staticmethod
    def registered(name: str) -> "CheckedSet":
        """A registered set.

        Raises:
            DataError: Not registered, without an annotation file, or with one that cannot be read.
        """
        vocabulary, metadata = dataset_vocabulary(name), MetadataCatalog.get(name)
        if metadata.get("json_file") is None:
            raise DataError(f"{name} has no annotation file of COCO's or LVIS's format to check.")
        return CheckedSet(
            name,
            read_annotation_file(metadata.json_file),
            Path(metadata.image_root),
            vocabulary,
            training=metadata.get("training", False),
            evaluator=metadata.get("evaluator_type", ""),
        )

    @property
    def summary(self) -> str:
        """The set's size in words."""
        return (
            f"{len(self.images):,} images, {len(self.annotations):,} annotations, {len(self.vocabulary)} classes "
            f"({len(self.vocabulary.novel)} novel)"
        )

    @cached_property
    def inspection(self) -> Inspection:
        """The entries sorted into valid, repaired and not usable, by the reader that training and evaluation use."""
        return inspect_content(self.content, self.image_root)

    @property
    def images(self) -> list[dict]:
        """Valid entries of the file's images, repaired."""
        return self.inspection.content["images"]

    @property
    def annotations(self) -> list[dict]:
        """Valid entries of the file's annotations, repaired."""
        return self.inspection.content["annotations"]

    @property
    def categories(self) -> list[dict]:
        """Valid entries of the file's categories, repaired."""
        return self.inspection.content["categories"]

    @cached_property
    def image_of(self) -> dict:
        """{id: image}."""
        return {image["id"]: image for image in self.images}

    def path(self, image: dict) -> Path:
        """Path of an image."""
        return image_path(image, self.image_root)


def name_of(annotation: dict) -> str:
    """An annotation in a report."""
    return f"annotation {short(annotation.get('id'))} of image {annotation.get('image_id')}"
