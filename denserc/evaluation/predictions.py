"""Saved predictions: a list in COCO's results format, plain JSON or gzipped (".gz")."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from ..data.proposals import write_results
from ..structures import DataError


def write_predictions(path: str | Path, detections: Iterable[dict]) -> None:
    """Writes detections one by one, as there may be millions; the file appears whole or not at all."""
    write_results(path, (json.dumps(detection) for detection in detections))


def read_predictions(path: str | Path) -> list[dict]:
    """The detections of a file: {"image_id", "category_id", "score"} and "bbox" [x, y, w, h] or "segmentation" each.

    Raises:
        DataError: the file is absent, not JSON, or its entries are no detections.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise DataError(f"The predictions {path} do not exist.") from None
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"The predictions {path} cannot be read: {error}.") from error
    if not isinstance(content, list):
        raise DataError(
            f"{path} holds a JSON {type(content).__name__}; predictions are a list in COCO's results format, as an "
            "evaluation writes to coco_instances_results.json."
        )
    for number, entry in enumerate(content):
        if not (
            isinstance(entry, dict)
            and entry.keys() >= {"image_id", "category_id", "score"}
            and entry.keys() & {"bbox", "segmentation"}
        ):
            raise DataError(
                f"{path}: entry {number} is no detection: {str(entry)[:200]}. Expected are image_id, category_id (the "
                "annotation file's), score, and bbox [x, y, width, height] or segmentation (RLE)."
            )
    return content
