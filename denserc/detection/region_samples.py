"""The regions that the second stage learns from.

Shape letters: R_b regions of one image, C classes.
"""

from dataclasses import dataclass

import torch
from detectron2.structures import Instances

from .assignment import IoUMatcher, Sampler


@dataclass(frozen=True)
class RegionSample:
    """The regions of one image that take part in the losses: P positives, then the negatives.

    Args:
        boxes: (R_b, 4).
        labels: (R_b,) int64, C for negatives.
        matches: (P,) index of the positives' ground truth.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    matches: torch.Tensor


@torch.no_grad()
def draw_sample(
    proposals: torch.Tensor, truth: Instances, *, matcher: IoUMatcher, sampler: Sampler, background: int
) -> RegionSample:
    """The regions of one image to learn from; its ground-truth boxes come first, matched to themselves.

    Args:
        proposals: (N, 4).
        truth: gt_boxes and gt_classes.
        background: the label of negatives, C.
    """
    boxes = truth.gt_boxes.tensor
    matches = torch.cat([torch.arange(len(boxes), device=boxes.device), matcher(proposals, boxes)])
    positive, negative = sampler(matches)
    labels = torch.full((len(positive) + len(negative),), background, dtype=torch.long, device=boxes.device)
    labels[: len(positive)] = truth.gt_classes[matches[positive]]
    chosen = torch.cat([boxes, proposals])[torch.cat([positive, negative])]
    return RegionSample(chosen, labels, matches[positive])


def with_masks(sample: RegionSample, truth: Instances) -> RegionSample:
    """The positives whose object has a mask; all of them where the data do not say ("gt_has_mask")."""
    positives = len(sample.matches)
    kept = truth.gt_has_mask[sample.matches] if truth.has("gt_has_mask") else slice(None)
    return RegionSample(sample.boxes[:positives][kept], sample.labels[:positives][kept], sample.matches[kept])
