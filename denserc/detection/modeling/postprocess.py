"""Suppression, the choice of detections, and the transform back to the original image.

Shape letters: R boxes, C classes, S candidates (pairs of a box and a class).
"""

from dataclasses import dataclass

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from torchvision.ops import nms

from .options import Suppression


def grouped_nms(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, *, iou: float, limit: int
) -> torch.Tensor:
    """Greedy suppression inside each group, best scores first, until `limit` boxes are kept.

    Greedy suppression of the best S' candidates does not depend on the others, so only as many of the best
    candidates are read as are needed: a million pairs of 1,203 classes cost no more than a few thousand.
    Groups are set apart by a shift in float64, which is exact to far below a pixel at any number of groups.

    Args:
        boxes: (S, 4); scores: (S,); groups: (S,) int64, class or level.
        iou: A box that overlaps a better one of its group by more than this is dropped.

    Returns:
        Indices of at most `limit` kept candidates, best first.
    """
    if not len(scores) or limit <= 0:
        return groups.new_zeros(0)
    count = min(len(scores), max(4 * limit, 1000))
    # Apple's GPUs have no float64.
    device = torch.device("cpu") if boxes.device.type == "mps" else boxes.device
    span = boxes.max().double().to(device) - boxes.min().double().to(device) + 1.0
    while True:
        best = _best(scores, count)
        shifted = boxes[best].to(device).double() + (groups[best].to(device).double() * span)[:, None]
        # The candidates are sorted already; descending ranks keep that order through the operator's own sort.
        ranks = torch.arange(count, 0, -1, device=device, dtype=torch.float64)
        kept = nms(shifted, ranks, iou)
        if len(kept) >= limit or count == len(scores):
            return best[kept[:limit].to(best.device)]
        count = min(len(scores), 4 * count)


def _best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` of a stable descending sort, without sorting all scores."""
    rows = torch.arange(len(scores), device=scores.device)
    if count < len(scores):
        least = scores.topk(count, sorted=False).values.min()
        rows = rows[~(scores < least)]  # as many equals of the least as there are, and NaN, which sorts first
    return rows[scores[rows].argsort(descending=True, stable=True)][:count]


@dataclass(frozen=True)
class DetectionRules:
    """Rules by which scored boxes become detections.

    Args:
        score_threshold: Score above which detections count.
        iou: Largest IoU of two detections that suppress each other without dropping the worse.
        limit: Largest number of detections per image, over all classes.
        drop_empty: Drop boxes without area, as Detectron2 does; MMDetection F-ViT keeps them.
        suppression: See Suppression.
        one_label: Make one detection of a box, of its best class; MMDetection F-ViT makes one of every class above the
            threshold. Boxes of different regions may still overlap: Suppression.CLASS_AGNOSTIC forbids that.
    """

    score_threshold: float
    iou: float
    limit: int
    drop_empty: bool = False
    suppression: Suppression = Suppression.PER_CLASS
    one_label: bool = False


def select_detections(
    boxes: torch.Tensor, scores: torch.Tensor, image_size: tuple[int, int], rules: DetectionRules
) -> tuple[Instances, torch.Tensor]:
    """Detections of one image: every class of every box above a score, suppressed.

    Args:
        boxes: (R, 4) class-agnostic, in network pixels, clipped to the image.
        scores: (R, C) without the background.
        image_size: (h, w) of the network input without padding.

    Returns:
        Instances with pred_boxes, scores and pred_classes, best first, and the row of `boxes` of each.
    """
    valid = (scores > rules.score_threshold) & torch.isfinite(boxes).all(dim=1, keepdim=True)
    if rules.drop_empty:
        valid &= ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1, keepdim=True)
    if rules.one_label and scores.shape[1]:
        best = scores.nan_to_num(nan=float("-inf")).argmax(dim=1, keepdim=True)
        valid &= torch.zeros_like(valid).scatter_(1, best, True)
    rows, classes = valid.nonzero(as_tuple=True)
    values = scores[rows, classes]
    groups = classes if rules.suppression is Suppression.PER_CLASS else torch.zeros_like(classes)
    kept = grouped_nms(boxes[rows], values, groups, iou=rules.iou, limit=rules.limit)
    result = Instances(image_size)
    result.pred_boxes = Boxes(boxes[rows[kept]])
    result.scores = values[kept]
    result.pred_classes = classes[kept]
    return result, rows[kept]


def to_original_size(result: Instances, size: tuple[int, int], *, mask_threshold: float = 0.5) -> Instances:
    """Detections in the pixels of an image of another size.

    Unlike Detectron2's function, and like MMDetection F-ViT, it keeps empty boxes.

    Args:
        result: Detections in network pixels; pred_masks, if any, are (R, 1, M, M) probabilities.
        size: (h, w) of the image as it was read.

    Returns:
        A new Instances; pred_masks are (R, h, w) bool.
    """
    boxes = _in_original(result.pred_boxes, result.image_size, size)
    fields = {**result.get_fields(), "pred_boxes": boxes}
    if result.has("pred_masks"):
        masks = result.pred_masks[:, 0]
        fields["pred_masks"] = paste_masks_in_image(masks, boxes, size, threshold=mask_threshold)
    return Instances(size, **fields)


def original_size(one: dict, result: Instances) -> tuple[int, int]:
    """(h, w) of the image file of an input; that of the network input where the input has none."""
    return one.get("height", result.image_size[0]), one.get("width", result.image_size[1])


def proposals_to_original_size(proposals: Instances, size: tuple[int, int]) -> Instances:
    """Proposals (proposal_boxes, scores) in the pixels of an image of another size (h, w); a new Instances."""
    boxes = _in_original(proposals.proposal_boxes, proposals.image_size, size)
    return Instances(size, **{**proposals.get_fields(), "proposal_boxes": boxes})


def _in_original(boxes: Boxes, image_size: tuple[int, int], size: tuple[int, int]) -> Boxes:
    moved = Boxes(boxes.tensor.clone())
    moved.scale(size[1] / image_size[1], size[0] / image_size[0])
    moved.clip(size)
    return moved
