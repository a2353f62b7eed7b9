"""Annotation and result files on disk: read with their keys checked, written whole or not at all."""

import json
from pathlib import Path

from ..structures import DataError, written_whole


def read_annotation_file(path: str | Path, keys: tuple[str, ...] = ("images", "annotations", "categories")) -> dict:
    """The content of a JSON annotation file.

    Raises:
        DataError: the file is absent, not JSON, or lacks one of the keys.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise DataError(f"The annotation file {path} does not exist. See datasets/README.md for the layout.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"The annotation file {path} cannot be read: {error}.") from error
    absent = [key for key in keys if not isinstance(content, dict) or key not in content]
    if absent:
        raise DataError(f"The annotation file {path} lacks {absent}; expected are {list(keys)}.")
    return content


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON so that a reader never sees half a file."""
    write_text(path, json.dumps(content))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file so that a reader never sees half of it; its folder is made where it is absent."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
