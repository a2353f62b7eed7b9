"""Detections drawn on pictures: novel classes red, base classes blue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances
from PIL import Image, ImageDraw
from torchvision.ops import nms

from ..structures import DataError, Vocabulary
from .canvas import LabelPlacer, blend, check_picture, enlarge, fitted, font, grid_of_pictures

NOVEL = (214, 39, 40)
BASE = (31, 90, 200)


@dataclass(frozen=True)
class DrawnObjects:
    """Objects to draw on one picture, detected or true.

    Args:
        boxes: (N, 4), (x1, y1, x2, y2) in pixels of the picture.
        labels: N class names.
        novel: N flags, True for novel classes; all base when empty.
        scores: N confidences in 0..1, or empty (ground truth).
        masks: (N, H, W) bool, or None.
    """

    boxes: np.ndarray
    labels: Sequence[str]
    novel: Sequence[bool] = ()
    scores: Sequence[float] = ()
    masks: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, "boxes", np.asarray(self.boxes, dtype=np.float64).reshape(-1, 4))
        object.__setattr__(self, "novel", tuple(bool(v) for v in self.novel) or (False,) * len(self.boxes))
        object.__setattr__(self, "scores", tuple(float(v) for v in self.scores))
        count = len(self.boxes)
        lengths = {"labels": len(self.labels), "novel": len(self.novel)}
        lengths |= {"scores": len(self.scores)} if self.scores else {}
        lengths |= {"masks": len(self.masks)} if self.masks is not None else {}
        wrong = {name: length for name, length in lengths.items() if length != count}
        if wrong:
            raise DataError(f"{count} boxes need as many labels, flags, scores and masks; got {wrong}.")

    def best(self, limit: int, threshold: float = 0.0) -> "DrawnObjects":
        """At most `limit` objects with a score of at least `threshold`, best first."""
        scores = np.asarray(self.scores or np.ones(len(self.boxes)))
        order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= threshold][:limit]
        return DrawnObjects(
            boxes=self.boxes[order],
            labels=[self.labels[i] for i in order],
            novel=[self.novel[i] for i in order],
            scores=[self.scores[i] for i in order] if self.scores else (),
            masks=None if self.masks is None else np.asarray(self.masks)[order],
        )


def detected_objects(found: Instances, vocabulary: Vocabulary, *, overlap: float = 0.5) -> DrawnObjects:
    """Convert a detector's result to objects to draw, with one label per place.

    Args:
        found: Instances of one picture: pred_boxes, scores, pred_classes and optional pred_masks (N, H, W), in pixels
            of the picture.
        vocabulary: Names that pred_classes index, unless `found` has a field class_names; novel names.
        overlap: Largest IoU of two boxes of any classes that are both kept; 1 keeps all.
    """
    kept = found[nms(found.pred_boxes.tensor, found.scores, overlap)].to("cpu")
    return _named(kept, "pred", vocabulary, scores=kept.scores.tolist())


def true_objects(truth: Instances, vocabulary: Vocabulary) -> DrawnObjects:
    """Annotated objects of one picture, to be drawn: gt_boxes, gt_classes and perhaps gt_masks as BitMasks."""
    return _named(truth, "gt", vocabulary)


def _named(objects: Instances, kind: str, vocabulary: Vocabulary, **more) -> DrawnObjects:
    if objects.has("class_names"):
        labels = list(objects.class_names)
    else:
        labels = [vocabulary.names[i] for i in objects.get(f"{kind}_classes").tolist()]
    masks = objects.get(f"{kind}_masks") if objects.has(f"{kind}_masks") else None
    return DrawnObjects(
        boxes=objects.get(f"{kind}_boxes").tensor.numpy(),
        labels=labels,
        novel=[label in vocabulary.novel for label in labels],
        masks=None if masks is None else np.asarray(getattr(masks, "tensor", masks)),
        **more,
    )


def draw_detections(picture: np.ndarray, objects: DrawnObjects, *, min_side: int = 384) -> np.ndarray:
    """Boxes with labels, masks as a tint.

    Args:
        picture: (H, W, 3) uint8 RGB.
        objects: Objects to draw, boxes and masks in the picture's frame.
        min_side: Pictures whose shorter side is smaller are enlarged by a whole factor first, so that text is legible.

    Returns:
        (H * k, W * k, 3) uint8, k >= 1; pixels far from boxes, masks and labels are those of the enlarged picture.
    """
    if objects.masks is not None and tuple(np.shape(objects.masks)[1:]) != check_picture(picture).shape[:2]:
        raise DataError(f"Masks are {np.shape(objects.masks)[1:]} (h, w), the picture {picture.shape[:2]}.")
    canvas, factor = enlarge(picture, min_side)
    colors = [NOVEL if novel else BASE for novel in objects.novel]
    if objects.masks is not None:
        for mask, color in zip(objects.masks, colors, strict=True):
            large = np.asarray(mask, dtype=bool).repeat(factor, axis=0).repeat(factor, axis=1)
            blend(canvas, large, color, 0.4)
    sheet = Image.fromarray(canvas)
    draw = ImageDraw.Draw(sheet)
    short = min(canvas.shape[:2])
    line = max(2, short // 190)
    text = font(max(12, short // 30))
    boxes = objects.boxes * factor
    order = np.argsort(objects.scores, kind="stable") if objects.scores else np.arange(len(boxes))
    for i in order:  # the best on top
        x1, y1, x2, y2 = boxes[i]
        frame = (min(x1, x2 - 1), min(y1, y2 - 1), x2 - 1, y2 - 1)
        # A white rim, so that a blue box is seen on a blue object.
        draw.rectangle(
            (frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1), outline=(255, 255, 255), width=line + 2
        )
        draw.rectangle(frame, outline=colors[i], width=line)
    placer = LabelPlacer(canvas.shape[:2])
    for i in order[::-1]:  # and the best has the first choice of a place
        words = f"{objects.labels[i]} {objects.scores[i]:.2f}" if objects.scores else objects.labels[i]
        words = fitted(words, text, canvas.shape[1] - 6)
        width, height = text.getlength(words) + 6, text.size + 5
        place = placer.place(tuple(boxes[i]), (height, width))
        draw.rectangle(place, fill=colors[i])
        draw.text((place[0] + 3, (place[1] + place[3]) / 2), words, (255, 255, 255), text, "lm")
    return np.array(sheet)


def detection_page(
    pictures: Sequence[np.ndarray],
    truths: Sequence[DrawnObjects] | None,
    found: dict[str, Sequence[DrawnObjects]],
    *,
    min_side: int = 384,
) -> np.ndarray:
    """Draw a page like the paper's Figure 6: one row per picture, ground truth first, then each detector.

    Args:
        pictures: Pictures of the P rows.
        truths: P sets of true objects; None: unknown, and no column.
        found: Detector's name -> P sets of detections.
        min_side: See draw_detections.
    """
    columns = found if truths is None else {"ground truth": truths, **found}
    rows = [
        [draw_detections(picture, objects[i], min_side=min_side) for objects in columns.values()]
        for i, picture in enumerate(pictures)
    ]
    return grid_of_pictures(rows, column_titles=list(columns))
