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
    examples = tuple(str(case) for case in cases[:_EXAMPLES])
    return [Finding(check, severity, message, advice, len(cases), examples)]


@dataclass(frozen=True)
class CheckedSet:
    """An annotation file and its registration.

    Args:
        name: Name of the set.
        content: Content of its COCO or LVIS file: images, annotations, categories.
        image_root: Folder of its images.
        vocabulary: The classes it is used with.
        training: True for a training set, whose boxes of novel classes are left out.
    """

    name: str
    content: dict
    image_root: Path
    vocabulary: Vocabulary
    training: bool = False

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
        content = read_annotation_file(metadata.json_file)
        return CheckedSet(name, content, Path(metadata.image_root), vocabulary, metadata.get("training", False))

    @property
    def summary(self) -> str:
        """The set's size in words."""
        return (
            f"{len(self.images):,} images, {len(self.annotations):,} annotations, {len(self.vocabulary)} classes "
            f"({len(self.vocabulary.novel)} novel)"
        )

    @property
    def images(self) -> list[dict]:
        """Entries of the file's images."""
        return self.content["images"]

    @property
    def annotations(self) -> list[dict]:
        """Entries of the file's annotations."""
        return self.content["annotations"]

    @property
    def categories(self) -> list[dict]:
        """Entries of the file's categories."""
        return self.content["categories"]

    @cached_property
    def image_of(self) -> dict:
        """{id: image}."""
        return {image["id"]: image for image in self.images}

    def path(self, image: dict) -> Path:
        """Path of an image."""
        return image_path(image, self.image_root)


def name_of(annotation: dict) -> str:
    """An annotation in a report."""
    return f"annotation {annotation.get('id')} of image {annotation.get('image_id')}"
