"""Overlaps, matching of detections with objects, and precision at 101 recalls, over columns.

All images, classes, thresholds and areas are matched at once, one round for the n-th detections of all groups.
Precision falls between true positives and is read off an envelope from the right. Its value at a recall therefore
depends on the true positives only: false ones are counted, not visited.

Shape letters: D detections, G objects, C classes, T IoU thresholds (.50 to .95), R recalls, A areas, M matched pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api

from .tables import Detections, Truth, places, rank_in_groups

_PAIRS = 1 << 21  # pairs compared at once: bounds memory
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([(0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10)])  # all, small, medium, large
_EPSILON = np.spacing(1)
UNMATCHED, HIT, IGNORED = 0, 1, 2


@dataclass(frozen=True)
class Matches:
    """States of the detections that overlap an object; all others are unmatched.

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
        crowd: (G,) bool, True for crowds.
        ignored: (G, A) bool, objects that do not count for an area.
        thresholds: (T,) IoU thresholds, ascending.
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
        if end <= begin:  # a single group is larger
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
        # In a round only one detection asks for an object.
        taken[own] |= chosen & ~crowd[own][:, None, None]
    return rows, states


class BoxOverlaps:
    """IoU of boxes; for a crowd the share of the detection that it covers.

    Args:
        found: The detections, in the order that is matched.
        truth: Ground-truth objects.
    """

    def __init__(self, found: Detections, truth: Truth):
        self.found = found
        self.truth = truth

    def areas(self) -> np.ndarray:
        """(D,) of the detections."""
        return self.found.boxes[:, 2] * self.found.boxes[:, 3]

    def __call__(self, detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """(P,) rows of detections and of objects -> (P,)."""
        x, y, w, h = self.found.boxes[detections].T
        gx, gy, gw, gh = self.truth.boxes[objects].T
        width = np.minimum(w + x, gw + gx) - np.maximum(x, gx)
        height = np.minimum(h + y, gh + gy) - np.maximum(y, gy)
        area, meet = w * h, width * height
        union = np.where(self.truth.crowd[objects], area, area + gw * gh - meet)
        apart = (width <= 0) | (height <= 0)
        return np.divide(meet, union, out=np.zeros(len(meet)), where=~apart)


class MaskOverlaps:
    """IoU of masks by pycocotools' own routine, group by group; arguments as BoxOverlaps."""

    def __init__(self, found: Detections, truth: Truth):
        self.found = found
        self.truth = truth

    def areas(self) -> np.ndarray:
        """(D,) of the detections, in pixels."""
        masks = () if self.found.masks is None else self.found.masks
        # One by one: given a list, pycocotools 2.0.11 overflows on NumPy 2.
        return np.array([float(mask_api.area(mask)) for mask in masks], dtype=np.float64)

    def __call__(self, detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """(P,) rows of detections and of objects, every pair of a group together -> (P,)."""
        keys = self.truth.keys[objects]
        bounds = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1], True])
        parts = []
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            first, last = objects[begin:end].min(), objects[begin:end].max() + 1
            codes = [self.found.masks[row] for row in np.unique(detections[begin:end])]
            crowd = self.truth.crowd[first:last].astype(np.uint8).tolist()
            truths = [self.truth.rle(row) for row in range(first, last)]
            parts.append(np.asarray(mask_api.iou(codes, truths, crowd), dtype=np.float64).reshape(-1))
        return np.concatenate(parts)


def precision_table(found: Detections, truth: Truth, *, masks: bool, max_dets: int | None) -> np.ndarray:
    """(T, R, C, A) as pycocotools' and lvis' accumulate; -1 where a class has nothing to find.

    Args:
        found: Detections of images and classes of the truth.
        masks: True to compare masks, False to compare boxes.
        max_dets: Detections of a class in an image that count; None: all.
    """
    keys = truth.labels(found.category_ids) * len(truth.image_ids) + truth.images(found.image_ids)
    if truth.verifiable is not None:
        counts = _among(keys, truth.verifiable)
        found, keys = found[counts], keys[counts]
    order = np.lexsort((-found.scores, keys))  # group after group, best first
    found, keys = found[order], keys[order]
    if max_dets is not None:
        counts = rank_in_groups(keys, found.scores) < max_dets
        found, keys = found[counts], keys[counts]

    overlaps = (MaskOverlaps if masks else BoxOverlaps)(found, truth)
    ignored = truth.ignore[:, None] | _outside(truth.areas)  # (G, A)
    matches = match(
        keys,
        truth.keys,
        overlaps=overlaps,
        crowd=truth.crowd,
        ignored=ignored,
        thresholds=np.minimum(THRESHOLDS, 1 - 1e-10),
    )
    false = ~(_outside(overlaps.areas()) | _among(keys, truth.not_exhaustive)[:, None])  # (D, A) where unmatched
    labels = keys // len(truth.image_ids) if len(truth.image_ids) else keys
    present = _objects_by_class(truth, ignored)  # (C, A)
    return _precision(labels, found.scores, matches, false, present)


def _precision(
    labels: np.ndarray, scores: np.ndarray, matches: Matches, false: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """(T, R, C, A) from detections in the order of classes, then images, then scores."""
    order = np.lexsort((-scores, labels))  # class after class, best first, of equals the earlier image
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    matched = place[matches.rows]
    sorting = np.argsort(matched)
    matched, states = matched[sorting], matches.states[sorting]
    false = false[order]
    false_until = np.cumsum(false, axis=0, dtype=np.int64)  # (D, A), were none matched
    classes = np.arange(len(present) + 1)
    bounds = np.searchsorted(labels[order], classes)  # of classes among detections
    matched_bounds = np.searchsorted(matched, bounds)
    precision = np.full((len(THRESHOLDS), len(RECALLS), *present.shape), -1.0)
    precision[:, :, present > 0] = 0.0
    for label in classes[:-1]:
        part = slice(matched_bounds[label], matched_bounds[label + 1])
        if part.start == part.stop:
            continue
        own, state = matched[part], states[part]  # (m,), (m, T, A)
        before = false_until[bounds[label] - 1] if bounds[label] else 0
        # Matched detections are not false ones, wherever they would be unmatched.
        spared = np.cumsum((state != UNMATCHED) & false[own][:, None], axis=0, dtype=np.int64)
        false_here = (false_until[own] - before)[:, None] - spared  # (m, T, A)
        hits = state == HIT
        for area in np.flatnonzero(present[label]):
            for threshold in range(len(THRESHOLDS)):
                hit = hits[:, threshold, area].nonzero()[0]
                if len(hit):
                    column = _at_recalls(false_here[hit, threshold, area], present[label, area])
                    precision[threshold, :, label, area] = column
    return precision


def _at_recalls(false: np.ndarray, objects: int) -> np.ndarray:
    """(R,) precision from the false positives before each true one, in order; 0 where the recall is not reached."""
    true = np.arange(1, len(false) + 1, dtype=np.float64)
    precision = true / (false + true + _EPSILON)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(true / objects, RECALLS, side="left")
    return np.append(envelope, 0.0)[reached.clip(max=len(false))]


def _objects_by_class(truth: Truth, ignored: np.ndarray) -> np.ndarray:
    """(C, A) objects that count."""
    labels = truth.keys // max(len(truth.image_ids), 1)
    count = len(truth.category_ids)
    return np.stack([np.bincount(labels[~column], minlength=count) for column in ignored.T], axis=1)


def _outside(areas: np.ndarray) -> np.ndarray:
    """(N,) -> (N, A) bool: not in the range of each area."""
    return (areas[:, None] < AREAS[:, 0]) | (areas[:, None] > AREAS[:, 1])


def _among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) bool: which keys are among the sorted `known`."""
    if not len(known):
        return np.zeros(len(keys), dtype=bool)
    return known[np.searchsorted(known, keys).clip(max=len(known) - 1)] == keys
