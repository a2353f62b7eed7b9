"""Confusion of predicted and true classes, and the figures that follow from it.

Shape letters: C scored classes, (H, W) pixels of a label file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ...structures import DataError


class AbsentClasses(Enum):
    """The classes whose IoU is averaged to mIoU."""

    PRESENT = "present"  # those with ground truth: Detectron2 since July 2022 (f3c1bc19), CAT-Seg's figures
    PRESENT_OR_PREDICTED = "present_or_predicted"  # an absent class that is predicted counts 0: Detectron2 0.6, mmseg

    @property
    def task(self) -> str:
        """Key of the results."""
        return "sem_seg" if self is AbsentClasses.PRESENT else "sem_seg_or_predicted"

    @property
    def title(self) -> str:
        """The rule in words."""
        if self is AbsentClasses.PRESENT:
            return "mean over classes with ground truth (Detectron2 since July 2022)"
        return "mean over classes with ground truth or predictions (Detectron2 0.6, mmsegmentation)"


@dataclass(frozen=True)
class Cells:
    """The cells of a confusion matrix that are not zero.

    Args:
        index: (N,) predicted * (C + 1) + true, where ignored pixels have the true class C.
        count: (N,) numbers of pixels.
    """

    index: np.ndarray
    count: np.ndarray


class ConfusionCounter:
    """Counts pixels by predicted and true class.

    Args:
        classes: Number C of classes.
        ignore_label: Value of the label files that is not scored.
    """

    def __init__(self, classes: int, ignore_label: int):
        self.classes = classes
        self.ignore_label = ignore_label

    def missed(self, truth: np.ndarray) -> np.ndarray:
        """Pixels of each class in an image without prediction, (C,) int64.

        Args:
            truth: (H, W), of a label file.

        Raises:
            DataError: The label file has values of no class.
        """
        cells = self.count(np.zeros_like(truth), truth)
        pixels = np.zeros(self.classes + 1, dtype=np.int64)
        pixels[cells.index] = cells.count
        return pixels[:-1]

    def count(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        """Cells of one image.

        Args:
            predicted: (H, W) whole numbers below C.
            truth: (H, W), of a label file.

        Raises:
            DataError: The sizes differ, or the label file has values of no class.
        """
        if predicted.shape != truth.shape:
            raise DataError(f"The prediction is {predicted.shape} (h, w), the label file {truth.shape}.")
        ignored = truth == self.ignore_label
        unknown = ((truth < 0) | (truth >= self.classes)) & ~ignored
        if unknown.any():
            raise DataError(
                f"The label file has the values {np.unique(truth[unknown]).tolist()[:10]}, which are neither a class "
                f"(0..{self.classes - 1}) nor the ignore label {self.ignore_label}. `denserc doctor` lists such files."
            )
        index = predicted.astype(np.int32 if self.classes < 46_000 else np.int64).reshape(-1)
        index *= self.classes + 1
        column = np.array(self.classes, dtype=np.uint16)  # of ignored pixels; C = 256 does not fit in 8-bit labels
        index += np.where(ignored, column, truth).reshape(-1)
        return _counted(index)


def _counted(index: np.ndarray) -> Cells:
    """Count each of (N,) whole numbers.

    Label maps consist of long runs; counting these takes a fraction of the time of counting pixels into a matrix of
    C^2 cells. Noise has no runs, and its pixels are counted.
    """
    ends = np.flatnonzero(index[1:] != index[:-1])
    if len(ends) > len(index) // 16:
        counts = np.bincount(index)
        cells = np.flatnonzero(counts)
        return Cells(cells, counts[cells])
    ends = np.append(ends, len(index) - 1) if len(index) else ends
    lengths = np.diff(ends, prepend=-1)
    cells, run = np.unique(index[ends], return_inverse=True)
    return Cells(cells.astype(np.int64), np.bincount(run, weights=lengths, minlength=len(cells)).astype(np.int64))


def confusion_matrix(cells: Iterable[Cells], classes: int) -> np.ndarray:
    """Sum of cells as (C, C + 1) int64, predicted by true class; the last column is ignored pixels."""
    matrix = np.zeros(classes * (classes + 1), dtype=np.int64)
    for one in cells:
        matrix[one.index] += one.count
    return matrix.reshape(classes, classes + 1)


@dataclass(frozen=True)
class SegmentationScores:
    """Counts of pixels per class, and the figures that follow from them; NaN where a class has no ground truth.

    Args:
        correct, truth, predicted: (C,) pixels that are not ignored.
    """

    correct: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "SegmentationScores":
        """From a confusion matrix (C, C + 1)."""
        scored = matrix[:, :-1]
        return cls(np.diagonal(scored).astype(float), scored.sum(0).astype(float), scored.sum(1).astype(float))

    @property
    def iou(self) -> np.ndarray:
        """(C,) intersection over union."""
        return _ratio(self.correct, self.truth + self.predicted - self.correct, self.truth > 0)

    @property
    def accuracy(self) -> np.ndarray:
        """(C,) share of a class's pixels that are found."""
        return _ratio(self.correct, self.truth, self.truth > 0)

    def mean_iou(self, protocol: AbsentClasses, members: np.ndarray | None = None) -> float:
        """Mean IoU in percent over all classes, or over `members`, (C,) bool."""
        members = np.ones(len(self.truth), dtype=bool) if members is None else members
        present = (self.truth > 0) & members
        averaged = present
        if protocol is AbsentClasses.PRESENT_OR_PREDICTED:
            averaged = (self.truth + self.predicted > 0) & members
        return _percent(self.iou[present].sum(), averaged.sum())

    def mean_accuracy(self, members: np.ndarray | None = None) -> float:
        """Mean accuracy in percent of the classes with ground truth."""
        present = (self.truth > 0) & (True if members is None else members)
        return _percent(self.accuracy[present].sum(), present.sum())

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by the classes' pixels, percent."""
        present = self.truth > 0
        return _percent((self.iou[present] * self.truth[present]).sum(), self.truth.sum())

    @property
    def pixel_accuracy(self) -> float:
        """Share of scored pixels that are right, percent."""
        return _percent(self.correct.sum(), self.truth.sum())


def _ratio(above: np.ndarray, below: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=where)


def _percent(above: float, below: float) -> float:
    return float(100.0 * above / below) if below else float("nan")
