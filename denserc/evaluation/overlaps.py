"""IoU of pairs, as pycocotools computes it: to the last bit, since a threshold decides. Shape letter: P pairs."""

import numpy as np
from pycocotools import mask as mask_api

from .detections import Detections
from .truth import Truth


class BoxOverlaps:
    """IoU of boxes; for a crowd the share of the detection that it covers.

    Args:
        found: the detections, in the order that is matched.
        truth: the objects.
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
