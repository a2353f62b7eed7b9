"""Log of predictions: one line of JSON per image, written at once, so that a crash loses nothing.

The first line identifies the model. The others are {"image_id", "category_id": [D], "bbox": [D][4], "score": [D]} and,
where there are masks, "segmentation": [D]. Ids are the data set's own; images without detections are included.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ...structures import ConfigurationError, DataError, write_errors
from ...structures.files import drop_cut_line, whole_lines_size
from ...structures.records import short, whole_id
from ..scoring.result_entries import columns_of, plain_columns
from ..scoring.tables import Detections

FORGET_FROM = 2_000_000  # detections in memory from which on those that cannot count are looked for
_LINES = 2000  # lines joined at once
_FIELDS = ("category_id", "bbox", "score")


@dataclass(frozen=True)
class Predictions:
    """Detections, and the images that were processed.

    Args:
        image_ids: (I,) int64, the images that were run, those without detections included.
        detections: Detections of these images.
    """

    image_ids: np.ndarray
    detections: Detections

    @classmethod
    def merged(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Parts as one, by ascending image id; of an image in several parts the last one counts."""
        seen, kept = set(), []
        for part in reversed(parts):
            fresh = np.array([image not in seen for image in part.image_ids.tolist()], dtype=bool)
            seen.update(part.image_ids.tolist())
            found = part.detections
            if not fresh.all():
                found = found[np.isin(found.image_ids, part.image_ids[fresh])]
            kept.append(found)
        found = Detections.joined(kept[::-1])
        order = np.argsort(found.image_ids, kind="stable")
        return cls(np.array(sorted(seen), dtype=np.int64), found[order])


class Collector:
    """Detections in memory, without those that cannot count any more.

    Args:
        countable: Table -> (D,) bool, asked when FORGET_FROM rows are held and whenever they have doubled; None:
            everything is kept.
    """

    def __init__(self, countable: Callable[[Detections], np.ndarray] | None = None):
        self._countable = countable
        self._images: dict[int, None] = {}
        self._tables: list[Detections] = []
        self._held, self._forget_at = 0, FORGET_FROM

    def __len__(self) -> int:
        return self._held

    def add(self, images: Sequence[int], found: Detections) -> None:
        """Some images and their detections; an image that is there already is taken once."""
        again = [image for image in images if image in self._images]
        if again:
            found = found[~np.isin(found.image_ids, again)]
        self._images.update(dict.fromkeys(images))
        self._tables.append(found)
        self._held += len(found)
        if self._held > self._forget_at and self._countable is not None:
            everything = Detections.joined(self._tables)
            self._tables = [everything[self._countable(everything)]]
            self._held = len(self._tables[0])
            self._forget_at = max(FORGET_FROM, 2 * self._held)

    def predictions(self) -> Predictions:
        """Detections collected so far."""
        return Predictions(np.array(list(self._images), dtype=np.int64), Detections.joined(self._tables))


class PredictionLog:
    """The file that one process appends to.

    Args:
        path: Path of the file; its folder is created.
        origin: Maker of the predictions: weights, vocabulary, settings. Only a log of the same is continued.
    """

    def __init__(self, path: Path, origin: str):
        self.path = path
        self.origin = origin
        self._file = None

    def begin(self) -> None:
        """Start an empty file in place of one that may be there."""
        self.close()
        with write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
            self._file.write(json.dumps({"origin": self.origin}) + "\n")
            self._file.flush()

    def resume(self) -> list[int]:
        """Continue the file after its last whole line; the images in it. An absent one is begun.

        Raises:
            ConfigurationError: Something else made it.
            DataError: It is not a log, or is damaged before its last line; names the line and how to start anew.
        """
        if not self.path.exists() or not whole_lines_size(self.path):
            self.begin()
            return []
        images = finished(self.path, self.origin)
        drop_cut_line(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        return images

    @property
    def is_open(self) -> bool:
        """True after it was begun or resumed."""
        return self._file is not None

    def write(self, image_id: int, found: Detections) -> None:
        """One image; it is on its way to the disk when this returns."""
        line = {
            "image_id": image_id,
            "category_id": found.category_ids.tolist(),
            "bbox": found.boxes.tolist(),
            "score": found.scores.tolist(),
        }
        if found.masks is not None:
            line["segmentation"] = found.masks.tolist()
        with write_errors(self.path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; nothing more will be written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)


def finished(path: Path, origin: str) -> list[int]:
    """The images in a log.

    Raises:
        ConfigurationError: Something else than `origin` made it.
        DataError: A line is not one of a log.
    """
    lines = _lines(path)
    _, first = next(lines, (1, {}))
    made_by = first.get("origin")
    if made_by != origin:
        raise ConfigurationError(
            f"{path} holds predictions of other weights, another vocabulary or other settings ({made_by!r} made them, "
            f"this is {origin!r}). Set TEST.RESUME_PREDICTIONS to False to start anew, or use another OUTPUT_DIR."
        )
    images = []
    while block := list(itertools.islice(lines, _LINES)):
        images += _table(path, block)[0]
    return images


def read_log(path: Path, collector: Collector) -> None:
    """Everything in a log into a collector, some images at a time.

    Raises:
        DataError: A line is not one of a log.
    """
    lines = _lines(path)
    next(lines, None)
    while block := list(itertools.islice(lines, _LINES)):
        collector.add(*_table(path, block))


def _table(path: Path, block: list[tuple[int, dict]]) -> tuple[list[int], Detections]:
    """The images of some lines, and their detections."""
    images, counts, columns = [], [], [[] for _ in (*_FIELDS, "segmentation")]
    for number, line in block:
        image, lists = line.get("image_id"), [line.get(name) for name in _FIELDS]
        masks = line.get("segmentation")
        if type(image) is not int or whole_id(image) is None:
            raise _damaged(path, number, f"its 'image_id' is {short(image)}, not a whole number")
        if not all(isinstance(values, list) for values in (*lists, [] if masks is None else masks)):
            raise _damaged(path, number, f"{', '.join(_FIELDS)} and segmentation must be lists")
        lengths = {len(values) for values in (*lists, lists[0] if masks is None else masks)}
        if len(lengths) != 1:
            raise _damaged(path, number, f"its lists have {sorted(lengths)} values; each detection has one of each")
        images.append(image)
        counts.append(len(lists[0]))
        for column, values in zip(columns, (*lists, masks or [None] * counts[-1]), strict=True):
            column += values
    if not sum(counts):
        return images, Detections.joined([])
    of_rows = list(itertools.chain.from_iterable(map(itertools.repeat, images, counts)))
    found = plain_columns(of_rows, *columns)
    if found is None:
        _refuse(path, block)
    return images, Detections(*found[:5])


def _refuse(path: Path, block: list[tuple[int, dict]]) -> NoReturn:
    """Name the first line with a value that is not one of a detection."""
    names = (*_FIELDS, "segmentation")
    for number, line in block:
        masks = line.get("segmentation") or itertools.repeat(None)
        for row in zip(*(line[name] for name in _FIELDS), masks, strict=False):
            try:
                found = columns_of([dict(zip(names, row, strict=True), image_id=line["image_id"])])
            except DataError as error:
                raise _damaged(path, number, str(error)) from None
            if found.text_ids:
                raise _damaged(path, number, "an id in it is text")
    raise _damaged(path, block[0][0], "it, or a line after it, has values of other types than a log")


def _lines(path: Path) -> Iterator[tuple[int, dict]]:
    """Numbers, from 1, and contents of the whole lines."""
    remaining = whole_lines_size(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            remaining -= len(line)
            if remaining < 0:
                return
            try:
                content = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _damaged(path, number, f"it is no JSON ({error})") from None
            if not isinstance(content, dict):
                raise _damaged(path, number, f"it is {short(content)}, not an object")
            yield number, content


def _damaged(path: Path, number: int, fault: str) -> DataError:
    return DataError(
        f"{path}, line {number}: {fault.rstrip('.')}. The log of predictions is damaged. Set TEST.RESUME_PREDICTIONS "
        "to False, or delete the file, to predict anew."
    )
