"""COCO's greedy matching of detections to objects, for all images, classes, thresholds and areas at once.

A group is what is matched by itself: the detections and objects of one class in one image. Within a group detections
choose one after another, best first; different groups do not touch. So round n lets the n-th detection of every group
choose at once. Only pairs that overlap by the least threshold take part: most detections have none.

Shape letters: D detections, G objects, P pairs, M detections that overlap an object, T thresholds, A areas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .detections import places

_PAIRS = 1 << 21  # pairs compared at once: bounds memory
UNMATCHED, HIT, IGNORED = 0, 1, 2


@dataclass(frozen=True)
class Matches:
    """What became of the detections that overlap an object; all others are unmatched.

    Args:
        rows: (M,) int64, ascending, of the detections.
        states: (M, T, A) uint8: UNMATCHED, HIT (matched) or IGNORED (matched to an object that does not count).
    """

    rows: np.ndarray
    states: np.ndarray


def match(
    found_keys: np.ndarray,
    truth_keys: np.ndarray,
    *,
    overlaps: Callable[[np.ndarray, np.ndarray], np.ndarray],
    crowd: np.ndarray,
    ignored: np.ndarray,
    thresholds: np.ndarray,
) -> Matches:
    """Match as pycocotools' and lvis' evaluateImg do.

    A detection takes, of the objects that it overlaps by the threshold or more and that are not taken, one that counts
    before one that does not, then the one with the largest overlap, of equals the later. Crowds are never used up.

    Args:
        found_keys: (D,) int64, sorted: the group of each detection; within a group best first.
        truth_keys: (G,) int64, sorted.
        overlaps: (detection rows (P,), object rows (P,)), by detection then object, whole groups -> (P,) IoU.
        crowd: (G,) bool.
        ignored: (G, A) bool, objects that do not count for an area.
        thresholds: (T,), ascending.
    """
    shape = (len(thresholds), ignored.shape[1])
    rows, states = [np.zeros(0, np.int64)], [np.zeros((0, *shape), np.uint8)]
    for detections, objects in _pairs(found_keys, truth_keys):
        iou = overlaps(detections, objects)
        near = iou >= thresholds[0]
        if not near.any():
            continue
        taken_part, state = _match_near(
            detections[near], objects[near], iou[near], found_keys, crowd, ignored, thresholds
        )
        rows.append(taken_part)
        states.append(state)
    return Matches(np.concatenate(rows), np.concatenate(states))


def _pairs(found_keys: np.ndarray, truth_keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of a detection and an object of one group, some whole groups at a time."""
    first = np.searchsorted(truth_keys, found_keys, side="left")
    count = np.searchsorted(truth_keys, found_keys, side="right") - first
    rows = np.flatnonzero(count)
    if not len(rows):
        return
    first, count, keys = first[rows], count[rows], found_keys[rows]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])  # of the groups
    until = np.cumsum(count)  # pairs up to and with each detection
    begin = 0
    while begin < len(rows):
        before = until[begin - 1] if begin else 0
        end = np.searchsorted(until, before + _PAIRS, side="right")
        place = np.searchsorted(starts, end, side="right") - 1  # back to the start of a group
        end = len(rows) if end >= len(rows) else starts[place]
        if end <= begin:  # one group alone is larger
            end = starts[place + 1] if place + 1 < len(starts) else len(rows)
        part = slice(begin, end)
        detections = np.repeat(rows[part], count[part])
        own = np.arange(len(detections)) - np.repeat(until[part] - count[part] - before, count[part])
        yield detections, np.repeat(first[part], count[part]) + own
        begin = end


def _match_near(detections, objects, iou, found_keys, crowd, ignored, thresholds) -> tuple[np.ndarray, np.ndarray]:
    """The rounds, for pairs (P,) sorted by detection; the detections (M,) and their states (M, T, A)."""
    new = np.r_[True, detections[1:] != detections[:-1]]
    starts, nth = np.flatnonzero(new), np.cumsum(new) - 1  # (M,) and (P,)
    rows = detections[starts]
    turn = places(found_keys[rows])  # (M,) the round of each detection

    # How much a detection prefers each of its objects, as a small number that keeps ties' order exactly.
    order = np.lexsort((objects, iou, nth))
    preference = np.empty(len(order), dtype=np.int32)
    preference[order] = np.arange(len(order)) - starts[nth]
    counts_more = np.int32(preference.max() + 1)

    first_object, last_object = objects.min(), objects.max() + 1
    crowd, ignored = crowd[first_object:last_object], ignored[first_object:last_object]
    objects = objects - first_object
    taken = np.zeros((len(crowd), len(thresholds), ignored.shape[1]), dtype=bool)
    states = np.zeros((len(rows), *taken.shape[1:]), dtype=np.uint8)

    by_turn = np.argsort(turn[nth], kind="stable")  # (P,) pairs, round after round
    bounds = np.searchsorted(turn[nth][by_turn], np.arange(turn.max() + 2))
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        pairs = by_turn[begin:end]
        own, chooser = objects[pairs], nth[pairs]
        heads = np.r_[True, chooser[1:] != chooser[:-1]]
        free = (iou[pairs, None] >= thresholds)[:, :, None] & ~taken[own]  # (p, T, A)
        wish = preference[pairs, None] + np.where(ignored[own], np.int32(0), counts_more)  # (p, A)
        wish = np.where(free, wish[:, None, :], np.int32(-1))
        best = np.maximum.reduceat(wish, np.flatnonzero(heads), axis=0)  # (m, T, A)
        states[chooser[heads]] = np.where(best < 0, UNMATCHED, np.where(best < counts_more, IGNORED, HIT))
        chosen = free & (wish == best[np.cumsum(heads) - 1])
        # In a round an object is wished for by one detection alone.
        taken[own] |= chosen & ~crowd[own][:, None, None]
    return rows, states
