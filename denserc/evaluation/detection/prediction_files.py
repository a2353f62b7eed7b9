"""Reading and writing of results files (COCO's format), quickly where all entries have the same form.

JSON's own parser takes some microseconds for each detection; there are six million in a file of LVIS's size. Where all
entries have the same keys in the same order and nothing but numbers, the text without its numbers is one skeleton
again and again: that is checked, then the numbers are read by NumPy. Every other file is left to the general reader.
"""

import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...data.proposals import write_results
from ...data.result_files import open_results, stream_results
from ...structures import DataError
from ..scoring.result_entries import ids_in_range, in_range
from ..scoring.tables import Detections

_CHUNK = 1 << 23  # bytes read at once
_NUMBER = b"0123456789+-.eE"
_SPACE = b" \t\r\n"


class _NotUniform(Exception):
    """Signal that the file must be read by the general reader."""


def read_uniform(path: Path) -> Detections | None:
    """The detections of a results file, plain or gzipped; None where it must be read entry by entry.

    Raises:
        OSError, EOFError, ValueError, zlib.error: The file cannot be opened or unpacked.
    """
    with open_results(path) as file:
        try:
            blocks = _blocks(file)
            first = next(blocks, b"")
            keys = _keys(first)
            return Detections.joined([_table(block, keys) for block in _chain(first, blocks)])
        except _NotUniform:
            return None


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def _blocks(file) -> Iterator[bytes]:
    """The list's entries, "{...},{...}", some megabytes at a time; the last one may end with the list's "]"."""
    rest = file.read(_CHUNK).lstrip()
    if not rest.startswith(b"["):
        raise _NotUniform
    rest = rest[1:]
    while True:
        more = file.read(_CHUNK)
        if not more:
            break
        rest += more
        end = rest.rfind(b"}") + 1
        comma = rest.find(b",", end)
        if not end or comma < 0 or rest[end:comma].strip(_SPACE):
            continue  # the separator itself is cut, or an entry is longer than a block
        yield rest[:end]
        rest = rest[comma + 1 :]
    rest = rest.strip(_SPACE)
    if not rest.endswith(b"]"):
        raise _NotUniform
    yield rest[:-1].rstrip(_SPACE)


def _keys(block: bytes) -> list[str]:
    """The keys of the first entry, in order; each has one number, "bbox" has four."""
    try:
        entry = json.loads(block[: block.index(b"}") + 1])
    except ValueError:
        raise _NotUniform from None
    values = [value for name, value in entry.items() if name != "bbox"]
    if (
        not entry.keys() >= {"image_id", "category_id", "bbox", "score"}
        or not all(type(value) in (int, float) for value in values)
        or not isinstance(entry["bbox"], list)
        or len(entry["bbox"]) != 4
    ):
        raise _NotUniform
    return list(entry)


def _table(block: bytes, keys: list[str]) -> Detections:
    like = ",".join(f'"{key}":' + ("[,,,]" if key == "bbox" else "") for key in keys)
    skeleton = ("{" + like + "},").encode().translate(None, _NUMBER)
    count = block.count(b"{")
    if block.translate(None, _NUMBER + _SPACE) + b"," != skeleton * count:
        raise _NotUniform
    for key in keys:
        block = block.replace(f'"{key}"'.encode(), b"")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # of text that is not a list of numbers
            numbers = np.fromstring(block.translate(None, b"{}[]:"), dtype=np.float64, sep=",")
    except (ValueError, DeprecationWarning):
        raise _NotUniform from None
    width = len(keys) + 3
    if len(numbers) != count * width:
        raise _NotUniform
    columns, numbers, place = {}, numbers.reshape(count, width), 0
    for key in keys:
        columns[key] = numbers[:, place : place + 4] if key == "bbox" else numbers[:, place]
        place += 4 if key == "bbox" else 1
    ids = np.stack([columns["image_id"], columns["category_id"]])
    if not ids_in_range(ids) or not in_range(columns["bbox"], columns["score"]):
        raise _NotUniform  # the general reader names the entry
    images, categories = ids.astype(np.int64)
    return Detections(images, categories, columns["bbox"].copy(), columns["score"].copy())


def write_predictions(path: str | Path, detections: Detections) -> None:
    """Write detections one by one, because there may be millions, to a file that appears atomically."""
    write_results(path, detections.lines())


def read_predictions(path: str | Path) -> Detections:
    """The detections of a file: {"image_id", "category_id", "score"} and "bbox" [x, y, w, h] or "segmentation" each.

    Raises:
        DataError: The file is absent, not JSON, or its entries are not detections.
    """
    try:
        if (table := read_uniform(Path(path))) is not None:
            return table
    except (OSError, EOFError, ValueError, zlib.error):
        pass  # the general reader names the fault
    try:
        return Detections.from_results(stream_results(path, what="predictions"))
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
