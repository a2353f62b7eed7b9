"""Region proposals on disk, in COCO's results format, and in memory as a few arrays.

A file is a JSON list, plain or gzipped (".gz"), of {"image_id", "bbox" [x, y, width, height] in pixels of the upright
image, "score", and perhaps more}. A thousand proposals of each image of COCO train2017 are 118 million entries: the
file is read entry by entry, and only the best of an image are kept, 20 bytes each.
"""

import gzip
import json
import logging
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..structures import ConfigurationError, DataError, atomic_path
from ..structures.records import is_number
from .result_files import stream_results

logger = logging.getLogger(__name__)

_ROWS = 1 << 20  # entries between two selections of the best


@dataclass(frozen=True)
class ProposalLimits:
    """Limits of the proposals that are used.

    Args:
        min_side, max_side: Boxes with an area under min_side^2 or over max_side^2 pixels are left out (CLIPSelf: 8
            and 1024).
        top_k: Number of best proposals per image, of the others; 0 keeps all.
    """

    min_side: float = 8.0
    max_side: float = 1024.0
    top_k: int = 0

    def __post_init__(self):
        if not 0 <= self.min_side <= self.max_side or self.top_k < 0:
            raise ConfigurationError(
                f"Proposals need 0 <= min_side <= max_side and top_k >= 0; got {self.min_side}, {self.max_side}, "
                f"{self.top_k}."
            )


@dataclass(frozen=True)
class ProposalTable:
    """The proposals of one file.

    Args:
        boxes: (P, 4) float32, (x1, y1, x2, y2) in pixels; those of an image are consecutive, best first.
        scores: (P,) float32 scores.
        spans: Id of an image, as `id_key` writes it -> (first, last + 1) of its rows.
    """

    boxes: np.ndarray
    scores: np.ndarray
    spans: dict[str, tuple[int, int]]


def id_key(image_id: int | float | str) -> str:
    """One spelling of an image id: 139, 139.0, "139" and "000000000139" are the same image."""
    if isinstance(image_id, float) and image_id.is_integer():
        image_id = int(image_id)
    text = str(image_id)
    return str(int(text)) if text.isdecimal() else text


def read_proposals(path: str | Path, limits: ProposalLimits | None = None) -> ProposalTable:
    """Read the useful proposals of a file, by image.

    Boxes without area or with values that are not finite are left out; how many is logged.

    Raises:
        DataError: The file is absent, cut short, not a list of results, or holds no useful proposal.
    """
    limits = limits or ProposalLimits()
    code_of: dict[str, int] = {}
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    codes, values, read = array("i"), array("f"), 0
    before, code = object(), 0  # unlike any id
    for entry in stream_results(path):
        try:
            image_id, (x, y, w, h), score = entry["image_id"], entry["bbox"], entry["score"]
            numbers = (x, y, w, h, score)
            if bool in map(type, numbers):
                raise TypeError
            # Entries of an image usually follow one another.
            if image_id != before or type(image_id) is not type(before):
                if not isinstance(image_id, str) and not is_number(image_id):
                    raise TypeError
                code, before = code_of.setdefault(id_key(image_id), len(code_of)), image_id
            values.extend(numbers)
        except (KeyError, TypeError, ValueError, OverflowError):  # the last: an integer beyond float64
            raise DataError(
                f"{path}: entry {read} is no proposal: {str(entry)[:200]}. Expected are image_id, bbox "
                "[x, y, width, height] and score, as in COCO's results format."
            ) from None
        codes.append(code)
        read += 1
        if len(codes) == _ROWS:
            kept.append(_best(codes, values, limits))
            codes, values = array("i"), array("f")
    kept.append(_best(codes, values, limits))
    image, boxes, scores = _sorted(*(np.concatenate(parts) for parts in zip(*kept, strict=True)), limits.top_k)
    logger.info(f"{path}: {read} proposals of {len(code_of)} images, of which {len(boxes)} are kept.")
    if not len(boxes):
        raise DataError(
            f"{path} holds no proposal between {limits.min_side:g}^2 and {limits.max_side:g}^2 pixels; it has {read}."
        )
    firsts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]])
    ends = np.r_[firsts[1:], len(image)]
    key_of = list(code_of)
    spans = {key_of[image[a]]: (int(a), int(b)) for a, b in zip(firsts, ends, strict=True)}
    return ProposalTable(boxes=boxes, scores=scores, spans=spans)


def _best(codes: array, values: array, limits: ProposalLimits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image codes, boxes and scores of some entries, without those of no use."""
    image = np.array(codes, dtype=np.int32)
    table = np.array(values, dtype=np.float32).reshape(-1, 5)
    sides = table[:, 2:4].astype(np.float64)
    area = sides.prod(axis=1)
    good = np.isfinite(table).all(axis=1) & (sides > 0).all(axis=1)
    good &= (area >= limits.min_side**2) & (area <= limits.max_side**2)
    table[:, 2:4] += table[:, :2]
    return _sorted(image[good], table[good, :4], table[good, 4], limits.top_k)


def _sorted(
    image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image after image, best first (the earlier entry of two equals), at most `top_k` of each."""
    order = np.lexsort((-scores, image))
    image = image[order]
    if top_k and len(image):
        new = np.r_[True, image[1:] != image[:-1]]
        rank = np.arange(len(image)) - np.flatnonzero(new)[np.cumsum(new) - 1]
        order, image = order[rank < top_k], image[rank < top_k]
    return image, boxes[order], scores[order]


def result_lines(image_id: int | str, boxes: np.ndarray, scores: np.ndarray) -> Iterator[str]:
    """Proposals of one image as lines of JSON, without separators between them.

    Args:
        boxes: (P, 4), (x1, y1, x2, y2) in pixels of the upright image; written as [x, y, width, height] to 1/100 pixel.
        scores: (P,) scores.
    """
    for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        if not all(map(math.isfinite, (x1, y1, x2, y2, score))):
            raise DataError(f"A proposal of image {image_id!r} is not finite: {(x1, y1, x2, y2)}, score {score}.")
        box = [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)]
        yield json.dumps({"image_id": image_id, "bbox": box, "score": float(f"{score:.6g}"), "category_id": 1})


def write_results(path: str | Path, lines: Iterable[str]) -> int:
    """Write lines of JSON as one list, atomically; returns their number."""
    count = 0
    write = gzip.open if Path(path).suffix == ".gz" else open
    with atomic_path(path) as partial, write(partial, "wt", encoding="utf-8") as file:
        for count, line in enumerate(lines, start=1):
            file.write(("[\n" if count == 1 else ",\n") + line)
        file.write("\n]\n" if count else "[]\n")
    return count
