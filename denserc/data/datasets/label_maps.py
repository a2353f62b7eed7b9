"""Label conversions: from the values of the official files to class indices.

A conversion takes (H, W) values as stored and returns (H, W) indices, uint8 or uint16, with the set's ignore label. A
value that the official files never contain is an error: it indicates the wrong files, e.g. labels that were converted
before.
"""

import numpy as np

from ...structures import DataError
from ..vocabulary.published import ade20k_full_ids, cityscapes_ids, pascal_context_ids

IGNORED = 255  # of 8-bit label maps
IGNORED_16 = 65535  # of ADE20K's 847 classes
_ILLEGAL = -1

# Values of stuffthingmaps that name nothing; value = COCO category id - 1, things up to 90.
_COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_COCO_VALUES = tuple(value for value in range(182) if value not in _COCO_UNUSED)  # 171 = 80 things + 91 stuff
_COCO_THINGS = 80


def _table(size: int, indices: dict[int, int], dtype=np.uint8) -> tuple[np.ndarray, type]:
    """A conversion as a table of `size` values; those without an index are illegal."""
    table = np.full(size, _ILLEGAL, dtype=np.int32)
    for value, index in indices.items():
        table[value] = index
    return table, dtype


def _look_up(labels: np.ndarray, table: np.ndarray, dtype: type, what: str) -> np.ndarray:
    outside = labels[(labels < 0) | (labels >= len(table))]
    indices = table[labels] if not outside.size else np.array([_ILLEGAL])
    if outside.size or (indices == _ILLEGAL).any():
        unknown = np.unique(outside if outside.size else labels[indices == _ILLEGAL]).tolist()
        raise DataError(f"{what}: the values {unknown[:10]} do not occur in the official files. Were they converted?")
    return indices.astype(dtype)


def coco_stuff(labels: np.ndarray) -> np.ndarray:
    """COCO's stuffthingmaps -> 0..170, 80 things first, 255 ignored."""
    indices = dict.fromkeys((*_COCO_UNUSED, 255), IGNORED) | {v: i for i, v in enumerate(_COCO_VALUES)}
    return _look_up(labels, *_table(256, indices), "COCO-Stuff")


def coco_object(labels: np.ndarray) -> np.ndarray:
    """COCO's stuffthingmaps -> things 1..80; all else, unlabeled pixels included, is background 0."""
    indices = dict.fromkeys((*range(182), 255), 0) | {v: i + 1 for i, v in enumerate(_COCO_VALUES[:_COCO_THINGS])}
    return _look_up(labels, *_table(256, indices), "COCO-Object")


def ade20k_150(labels: np.ndarray) -> np.ndarray:
    """ADEChallengeData2016's annotations, 1..150 -> 0..149; 0 is ignored."""
    return _look_up(labels, *_table(256, {0: IGNORED} | {v: v - 1 for v in range(1, 151)}), "ADE20K-150")


def ade20k_847(rgb: np.ndarray) -> np.ndarray:
    """ADE20K's `*_seg.png`, (H, W, 3) uint8 -> 0..846 as uint16, all other objects 65535.

    The object's id is int(R / 10) * 256 + G.
    """
    ids = ade20k_full_ids()
    table = np.full(26 * 256, IGNORED_16, dtype=np.uint16)
    table[list(ids)] = np.arange(len(ids))
    return table[(rgb[..., 0] // 10).astype(np.int32) * 256 + rgb[..., 1]]


def voc_20(labels: np.ndarray) -> np.ndarray:
    """VOC's palette indices, 1..20 -> 0..19; background and object borders are ignored."""
    return _look_up(labels, *_table(256, {0: IGNORED, 255: IGNORED} | {v: v - 1 for v in range(1, 21)}), "VOC20")


def voc_20_background(labels: np.ndarray) -> np.ndarray:
    """VOC's palette indices, 1..20 -> 0..19, background 0 -> 20; object borders are ignored (CAT-Seg's PAS-20b)."""
    return _look_up(labels, *_table(256, {0: 20, 255: IGNORED} | {v: v - 1 for v in range(1, 21)}), "PAS-20b")


def voc_21(labels: np.ndarray) -> np.ndarray:
    """VOC's palette indices as they are: background 0, classes 1..20, object borders 255."""
    return _look_up(labels, *_table(256, {v: v for v in (*range(21), 255)}), "VOC21")


def context_59(labels: np.ndarray) -> np.ndarray:
    """PASCAL-Context's merged ids -> 0..58 by ascending id; 0 is ignored."""
    indices = {0: IGNORED} | {v: i for i, v in enumerate(pascal_context_ids())}
    return _look_up(labels, *_table(460, indices), "PASCAL-Context 59")


def context_60(labels: np.ndarray) -> np.ndarray:
    """PASCAL-Context's merged ids -> 1..59 by ascending id; 0 is background, and nothing is ignored."""
    indices = {0: 0} | {v: i + 1 for i, v in enumerate(pascal_context_ids())}
    return _look_up(labels, *_table(460, indices), "PASCAL-Context 60")


def context_459(labels: np.ndarray) -> np.ndarray:
    """LabelMap of PASCAL-Context's .mat files, 1..459 -> 0..458 as uint16; nothing is ignored."""
    indices = {v: v - 1 for v in range(1, 460)}
    return _look_up(labels, *_table(460, indices, np.uint16), "PASCAL-Context 459")


def cityscapes(labels: np.ndarray) -> np.ndarray:
    """Cityscapes' labelIds -> 0..18; all other ids, 0..33, are ignored."""
    indices = dict.fromkeys(range(34), IGNORED) | {v: i for i, v in enumerate(cityscapes_ids())}
    return _look_up(labels, *_table(256, indices), "Cityscapes")
