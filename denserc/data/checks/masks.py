"""Masks: polygons or run lengths that fit their image and their box."""

import numpy as np

from .finding import CheckedSet, Finding, Severity, found, name_of

_AGREE = 0.5  # intersection over union of a polygon's extent and its box


def check_masks(checked: CheckedSet) -> list[Finding]:
    """Form of the masks, and that they lie where their boxes do."""
    masked = [a for a in checked.annotations if a.get("segmentation")]
    if not masked:
        return []
    bare = [a for a in checked.annotations if not a.get("segmentation")]
    faults = [(a, _fault(a["segmentation"], checked.image_of.get(a["image_id"]))) for a in masked]
    return [
        *found(
            "mask-absent", Severity.WARNING, f"annotations without a mask, where {len(masked):,} have one",
            "Add their masks, or train without (MODEL.MASK_ON False).", [name_of(a) for a in bare],
        ),
        *found(
            "mask-malformed", Severity.ERROR, "masks that are neither polygons nor run lengths of their image's size",
            "Write a list of polygons [x1, y1, x2, y2, x3, y3, ...], or {size: [height, width], counts: ...}.",
            [f"{name_of(a)}: {text}" for a, text in faults if text],
        ),
        *found(
            "mask-beside-box", Severity.WARNING, "masks that do not lie where their boxes do",
            "Compute the boxes from the masks.",
            [name_of(a) for a, text in faults if not text and not _agrees(a)],
        ),
    ]  # fmt: skip


def _fault(mask: object, image: dict | None) -> str:
    if isinstance(mask, dict):
        if "counts" not in mask or not isinstance(mask.get("size"), list):
            return "run lengths need size and counts"
        if image is not None and list(mask["size"]) != [image["height"], image["width"]]:
            return f"size {mask['size']} of an image of {[image['height'], image['width']]} (h, w)"
        return ""
    if not isinstance(mask, list) or not all(isinstance(polygon, list) for polygon in mask):
        return f"a {type(mask).__name__}"
    if not all(isinstance(value, (int, float)) for polygon in mask for value in polygon):
        return "a coordinate is no number"
    if all(len(polygon) < 6 or len(polygon) % 2 for polygon in mask):
        return "no polygon of three corners"
    return ""


def _agrees(annotation: dict) -> bool:
    mask, box = annotation["segmentation"], annotation["bbox"]
    if isinstance(mask, dict) or not isinstance(box, list) or len(box) != 4:
        return True
    corners = np.concatenate([np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in mask if len(p) % 2 == 0])
    extent = np.concatenate([corners.min(0), corners.max(0)])
    box = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], dtype=np.float64)
    shared = np.clip(np.minimum(extent[2:], box[2:]) - np.maximum(extent[:2], box[:2]), 0, None).prod()
    together = np.prod(extent[2:] - extent[:2]) + np.prod(box[2:] - box[:2]) - shared
    # The extent of a thin or tiny polygon is easily rounded away; a pixel more on every side does not matter.
    return together <= 0 or shared / together >= _AGREE or np.abs(extent - box).max() <= 2
