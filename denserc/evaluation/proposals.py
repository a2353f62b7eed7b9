"""Recall of class-agnostic box proposals: does the RPN find objects of classes that it never saw a box of?"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torchvision.ops import box_iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def proposal_recall(
    proposals: Mapping[int, torch.Tensor],
    ground_truth: dict,
    *,
    category_ids: Sequence[int],
    limits: Sequence[int] = (100, 300, 1000),
) -> dict[str, float]:
    """Average recall over IoU .50:.95 with the first 100, 300 and 1000 proposals of an image.

    Each object is matched to at most one proposal, the best-covered object first, as Detectron2 does.

    Args:
        proposals: image id -> (P, 4), (x1, y1, x2, y2) in pixels of the original image, best first.
        ground_truth: the content of a COCO instances JSON; crowds are left out.
        category_ids: classes whose objects are sought (the novel ones, say).
        limits: numbers of proposals.

    Returns:
        {"AR@100": percent, ...}; NaN when there is no object to find.
    """
    wanted = set(category_ids)
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in ground_truth["images"]}
    for annotation in ground_truth["annotations"]:
        if annotation["category_id"] in wanted and not annotation.get("iscrowd", 0):
            x, y, w, h = annotation["bbox"]
            boxes[annotation["image_id"]].append([x, y, x + w, y + h])
    recall = {}
    for limit in limits:
        overlaps = [
            _best_overlaps(proposals.get(image, torch.zeros(0, 4))[:limit], torch.tensor(found, dtype=torch.float32))
            for image, found in boxes.items()
            if found
        ]
        covered = np.concatenate(overlaps) if overlaps else np.zeros(0)
        hit = covered[:, None] >= IOU_THRESHOLDS  # (objects, thresholds)
        recall[f"AR@{limit}"] = 100.0 * float(hit.mean()) if covered.size else float("nan")
    return recall


def _best_overlaps(proposals: torch.Tensor, objects: torch.Tensor) -> np.ndarray:
    """(P, 4) and (G, 4) -> (G,) IoU of the one-to-one matching, zeros for objects left over."""
    overlap = box_iou(proposals.float(), objects)  # (P, G)
    best = np.zeros(len(objects))
    for i in range(min(overlap.shape)):
        value, flat = overlap.flatten().max(dim=0)
        row, column = divmod(int(flat), overlap.shape[1])
        best[i] = float(value)
        overlap[row], overlap[:, column] = -1.0, -1.0
    return best
