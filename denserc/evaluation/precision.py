"""Precision at 101 recalls, of every class, threshold and area, from columns.

Precision falls between true positives and is read off an envelope from the right, so its value at a recall is decided
by the true positives alone: false ones are counted, not visited.

Shape letters: D detections, G objects, C classes, T IoU thresholds (.50 to .95), R recalls, A areas; M as in
`matching`.
"""

import numpy as np

from .detections import Detections, rank_in_groups
from .matching import HIT, UNMATCHED, Matches, match
from .overlaps import BoxOverlaps, MaskOverlaps
from .truth import Truth

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_EPSILON = np.spacing(1)
AREAS = np.array([(0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10)])  # all, small, medium, large


def precision_table(found: Detections, truth: Truth, *, masks: bool, max_dets: int | None) -> np.ndarray:
    """(T, R, C, A) as pycocotools' and lvis' accumulate; -1 where a class has nothing to find.

    Args:
        found: detections of images and classes of the truth.
        masks: compare masks, not boxes.
        max_dets: detections of a class in an image that count; None: all.
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
