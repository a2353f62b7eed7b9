"""Detections against the data set that they are scored on: its ids, its images' sizes, the form of its boxes."""

import dataclasses
import logging

import numpy as np

from ...data.checks.boxes import other_format
from ...structures import DataError
from .tables import Detections, Truth

logger = logging.getLogger(__name__)


def require_known_ids(found: Detections, truth: Truth, listed: set[int]) -> None:
    """Check the ids of images and categories.

    Args:
        listed: Ids of all categories of the annotation file, evaluated or not.

    Raises:
        DataError: An id that the annotation file does not list.
    """
    strays = np.unique(found.image_ids[truth.images(found.image_ids) < 0])
    if len(strays):
        raise DataError(
            f"Detections of {len(strays)} images that the ground truth does not hold (first: {strays[:5].tolist()}). "
            f"Evaluate with the annotation file of the set that was run."
        )
    unknown = np.flatnonzero(~np.isin(found.category_ids, sorted(listed)))
    if len(unknown):
        ids = np.unique(found.category_ids[unknown])
        counted = " Are they labels that count from 0?" if ids[0] == 0 and 0 not in listed else ""
        raise DataError(
            f"{len(unknown)} of {len(found)} detections are of categories that the annotation file does not list: "
            f"{ids[:5].tolist()}, first in entry {unknown[0]}. It lists {len(listed)}, from {min(listed)} to "
            f"{max(listed)}.{counted} Category ids are those of the annotation file: write these, or leave detections "
            "of other categories out."
        )


def require_mask_sizes(found: Detections, truth: Truth) -> None:
    """Check that masks have the sizes of their images, where the annotation file gives them.

    Raises:
        DataError: Another size.
    """
    sizes = truth.image_sizes[truth.images(found.image_ids)]  # (D, 2)
    given = np.array([mask["size"] for mask in found.masks], dtype=np.int64).reshape(-1, 2)
    wrong = np.flatnonzero((sizes > 0).all(1) & (given != sizes).any(1))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{len(wrong)} of {len(found)} masks have another size than their image. The first is entry {row}: "
            f"{given[row].tolist()} for image {found.image_ids[row]} of {sizes[row].tolist()} [height, width]. Write "
            "masks in the size of the image in the annotation file."
        )


def with_masks(truth: Truth) -> Truth:
    """The objects that have a mask. Detections of the others' classes in their images are not false if unmatched.

    Raises:
        DataError: None of the objects has one.
    """
    masked = np.array([bool(annotation.get("segmentation")) for annotation in truth.annotations], dtype=bool)
    if masked.all():
        return truth
    if not masked.any():
        raise DataError("The data set has no 'segmentation': masks cannot be evaluated, only boxes.")
    labels = truth.keys // len(truth.image_ids)
    gone = [row for row in np.flatnonzero(~masked) if not truth.annotations[row].get("iscrowd", 0)]
    return dataclasses.replace(
        truth,
        keys=truth.keys[masked],
        boxes=truth.boxes[masked],
        areas=truth.areas[masked],
        crowd=truth.crowd[masked],
        ignore=truth.ignore[masked],
        annotations=[annotation for annotation, has in zip(truth.annotations, masked, strict=True) if has],
        not_exhaustive=np.union1d(truth.not_exhaustive, truth.keys[~masked]),
        instances=truth.instances - np.bincount(labels[gone], minlength=len(truth.category_ids)),
    )


def warn_of_boxes(found: Detections, image_ids: np.ndarray, image_sizes: np.ndarray) -> None:
    """Log a warning if the boxes look like another format than [x, y, width, height] in pixels.

    Args:
        image_ids: (I,) ids of all images.
        image_sizes: (I, 2) their sizes (h, w), zeros where they are not known.
    """
    negative = int((found.boxes[:, 2:] < 0).any(1).sum())
    if negative:
        logger.warning(
            "%d of %d boxes have a negative width or height, and match nothing. Boxes are [x, y, width, height].",
            negative, len(found),
        )  # fmt: skip
    size_of = dict(zip(image_ids.tolist(), image_sizes.tolist(), strict=True))
    sizes = np.array([size_of.get(image, (0, 0)) for image in found.image_ids.tolist()], dtype=np.float64)
    known = (sizes > 0).all(1) if len(sizes) else np.zeros(0, bool)
    for finding in other_format(found.boxes[known], sizes[known][:, ::-1]) if known.any() else ():
        logger.warning("The results may be of another format: %s. %s", finding.message, finding.advice)
