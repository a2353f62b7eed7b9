"""Saved predictions: a list in COCO's results format, plain JSON or gzipped (".gz")."""

from pathlib import Path

from ..data.proposals import stream_results, write_results
from ..structures import DataError
from .detections import Detections
from .uniform_results import read_uniform


def write_predictions(path: str | Path, detections: Detections) -> None:
    """Writes detections one by one, as there may be millions; the file appears whole or not at all."""
    write_results(path, detections.lines())


def read_predictions(path: str | Path) -> Detections:
    """The detections of a file: {"image_id", "category_id", "score"} and "bbox" [x, y, w, h] or "segmentation" each.

    Raises:
        DataError: the file is absent, not JSON, or its entries are no detections.
    """
    try:
        if (table := read_uniform(Path(path))) is not None:
            return table
    except (OSError, EOFError):
        pass  # the general reader says what is wrong
    try:
        return Detections.from_results(stream_results(path, what="predictions"))
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
