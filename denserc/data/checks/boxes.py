"""Checks of boxes, (x, y, width, height) in pixels inside the image, and of masks, which must fit their boxes."""

import numpy as np

from .finding import CheckedSet, Finding, Severity, found, name_of

_AGREE = 0.5  # intersection over union of a polygon's extent and its box
_SLACK = 1.0  # pixels that a rounded box may stick out
_SUSPICIOUS = 0.1  # share of boxes that stick out from which another format is likelier


def check_masks(checked: CheckedSet) -> list[Finding]:
    """Masks are complete, and agree with their boxes."""
    masked = [a for a in checked.annotations if a.get("segmentation")]
    if not masked:
        return []
    bare = [a for a in checked.annotations if not a.get("segmentation")]
    return [
        *found(
            "mask-absent", Severity.WARNING, f"annotations without a mask, where {len(masked):,} have one",
            "Add their masks, or train without (MODEL.MASK_ON False).", [name_of(a) for a in bare],
        ),
        *found(
            "mask-beside-box", Severity.WARNING, "masks that do not lie where their boxes do",
            "Compute the boxes from the masks.",
            [name_of(a) for a in masked if not _agrees(a)],
        ),
    ]  # fmt: skip


def _agrees(annotation: dict) -> bool:
    mask, box = annotation["segmentation"], annotation["bbox"]
    if isinstance(mask, dict):
        return True
    corners = np.concatenate([np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in mask])
    extent = np.concatenate([corners.min(0), corners.max(0)])
    box = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], dtype=np.float64)
    shared = np.clip(np.minimum(extent[2:], box[2:]) - np.maximum(extent[:2], box[:2]), 0, None).prod()
    together = np.prod(extent[2:] - extent[:2]) + np.prod(box[2:] - box[:2]) - shared
    # The extent of a thin or tiny polygon is easily rounded away; a pixel more on every side does not matter.
    return together <= 0 or shared / together >= _AGREE or np.abs(extent - box).max() <= 2


def check_boxes(checked: CheckedSet) -> list[Finding]:
    """Format, size and place of the boxes, and areas against them."""
    usable = [a for a in checked.annotations if a["image_id"] in checked.image_of]
    if not usable:
        return []
    boxes = np.array([a["bbox"] for a in usable], dtype=np.float64)  # (N, 4)
    images = [checked.image_of[a["image_id"]] for a in usable]
    sides = np.array([(image["width"], image["height"]) for image in images], dtype=np.float64)  # (N, 2)
    other = other_format(boxes, sides)
    if other:
        return other

    def of(rows: np.ndarray) -> list[str]:
        return [f"{name_of(usable[i])}: {usable[i]['bbox']} in {images[i]['width']} x {images[i]['height']}"
                for i in np.flatnonzero(rows)]  # fmt: skip

    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    empty = (boxes[:, 2:] == 0).any(1)
    beside = ((last <= 0) | (first >= sides)).any(1)
    outside = ~beside & ((first < -_SLACK) | (last > sides + _SLACK)).any(1)
    return [
        *found("box-empty", Severity.WARNING, "boxes without width or height",
               "Remove them: they are not trained on, but count as missed.", of(empty)),
        *found("box-beside-image", Severity.ERROR, "boxes wholly outside their image",
               "Check that boxes and images belong together, and that images were not resized since.", of(beside)),
        *found("box-outside", Severity.WARNING, "boxes that stick out of their image by more than a pixel",
               "Clip them to the image. Training clips them; evaluation compares them as they are.", of(outside)),
        *_areas(usable, boxes),
    ]  # fmt: skip


def other_format(boxes: np.ndarray, sides: np.ndarray) -> list[Finding]:
    """An error where the boxes as a whole look like another format."""
    if (boxes <= 1).all() and (boxes >= 0).all() and (sides > 2).all():
        return found(
            "boxes-relative", Severity.ERROR, "all boxes lie between 0 and 1: parts of the image instead of pixels",
            "Multiply x and width by the image's width, y and height by its height.", boxes.tolist(),
        )  # fmt: skip
    sticking_out = (boxes[:, :2] + boxes[:, 2:] > sides + _SLACK).any(1)
    as_corners = (boxes[:, 2:] >= boxes[:, :2]).all(1) & (boxes[:, 2:] <= sides + _SLACK).all(1)
    if sticking_out.mean() > _SUSPICIOUS and as_corners.all():
        return found(
            "boxes-are-corners",
            Severity.ERROR,
            f"{int(sticking_out.sum())} of {len(boxes)} boxes stick out, and all would fit as [x1, y1, x2, y2]",
            "Write [x, y, width, height]: width = x2 - x1, height = y2 - y1.",
            boxes[sticking_out].tolist(),
        )
    return []


def _areas(annotations: list[dict], boxes: np.ndarray) -> list[Finding]:
    """Areas of objects without a mask against their boxes: AP by size goes by the file's "area"."""
    wrong = []
    for annotation, (_, _, w, h) in zip(annotations, boxes, strict=True):
        area = annotation.get("area")
        if area is not None and not annotation.get("segmentation") and abs(area - w * h) > 0.1 * w * h + (w + h) + 1:
            wrong.append(f"{name_of(annotation)}: area {area}, box {w:g} x {h:g}")
    return found(
        "area", Severity.WARNING, "areas that differ from their boxes'; AP of small, medium and large goes by them",
        "Write width x height, or leave \"area\" out.", wrong,
    )  # fmt: skip
