"""Matching of candidate boxes with ground truth, and sampling of the candidates that take part in a loss.

Shape letters: R candidate boxes, G ground-truth boxes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from .options import LowQualityMatch

NEGATIVE = -1
IGNORED = -2

Sampler = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class IoUMatcher:
    """Matcher of each candidate with the ground-truth box that it overlaps most, if it overlaps it enough.

    Args:
        positive_iou: Least IoU of a positive candidate.
        negative_iou: IoU below which a candidate is negative; between the two it is ignored.
        low_quality: See LowQualityMatch.
        low_quality_iou: Least IoU of a match by LowQualityMatch.OVERWRITE.
    """

    def __init__(
        self,
        *,
        positive_iou: float,
        negative_iou: float,
        low_quality: LowQualityMatch = LowQualityMatch.NONE,
        low_quality_iou: float = 0.0,
    ):
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.low_quality = low_quality
        self.low_quality_iou = low_quality_iou

    @torch.no_grad()
    def __call__(self, candidates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """(R, 4) and (G, 4) boxes -> (R,) int64: index of the matched ground truth, NEGATIVE or IGNORED."""
        matches = torch.full((len(candidates),), NEGATIVE, dtype=torch.long, device=candidates.device)
        if not len(truth) or not len(candidates):
            return matches
        overlaps = pairwise_iou(Boxes(truth), Boxes(candidates))  # (G, R)
        best, best_truth = overlaps.max(dim=0)
        matches[best >= self.negative_iou] = IGNORED
        matches = torch.where(best >= self.positive_iou, best_truth, matches)
        if self.low_quality is LowQualityMatch.NONE:
            return matches
        best_of_truth = overlaps.max(dim=1, keepdim=True).values  # (G, 1)
        least = self.low_quality_iou if self.low_quality is LowQualityMatch.OVERWRITE else 0.0
        chosen = (overlaps == best_of_truth) & (best_of_truth >= least) & (best_of_truth > 0)
        if self.low_quality is LowQualityMatch.KEEP_BEST:
            return torch.where(chosen.any(dim=0), best_truth, matches)
        # Of several ground-truth boxes that claim one candidate, the last one wins in MMDetection's loop.
        rank = torch.arange(1, len(truth) + 1, device=truth.device)[:, None]
        claimed_by = (chosen * rank).max(dim=0).values - 1
        return torch.where(claimed_by >= 0, claimed_by, matches)


class RandomSampler:
    """Sampler of positives up to a share of a fixed number, filled up with negatives.

    Args:
        num: Maximum number of candidates per image in the loss.
        positive_fraction: The largest share of positives.
    """

    def __init__(self, *, num: int, positive_fraction: float):
        self.num = num
        self.positive_fraction = positive_fraction

    def __call__(self, matches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Matches (R,) of one image -> indices of the positives and of the negatives, both ascending."""
        positive = _draw((matches >= 0).nonzero().flatten(), int(self.num * self.positive_fraction))
        negative = _draw((matches == NEGATIVE).nonzero().flatten(), self.num - len(positive))
        return positive, negative


def _draw(indices: torch.Tensor, count: int) -> torch.Tensor:
    if len(indices) <= count:
        return indices
    # The permutation comes from the CPU's generator on every device, so that one seed means one sample.
    order = torch.randperm(len(indices))[:count].sort().values
    return indices[order.to(indices.device)]


@dataclass(frozen=True)
class RegionSample:
    """The regions of one image that take part in the losses: P positives, then the negatives.

    Args:
        boxes: (R_b, 4) boxes of the regions.
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
    """Draw the training regions of one image; its ground-truth boxes come first, matched to themselves.

    Args:
        proposals: (N, 4) boxes.
        truth: Instances with gt_boxes and gt_classes.
        background: Label of negatives, C.
    """
    boxes = truth.gt_boxes.tensor
    matches = torch.cat([torch.arange(len(boxes), device=boxes.device), matcher(proposals, boxes)])
    positive, negative = sampler(matches)
    labels = torch.full((len(positive) + len(negative),), background, dtype=torch.long, device=boxes.device)
    labels[: len(positive)] = truth.gt_classes[matches[positive]]
    chosen = torch.cat([boxes, proposals])[torch.cat([positive, negative])]
    return RegionSample(chosen, labels, matches[positive])


def with_masks(sample: RegionSample, truth: Instances) -> RegionSample:
    """The positives whose object has a mask; all of them without "gt_has_mask" in the data."""
    positives = len(sample.matches)
    kept = truth.gt_has_mask[sample.matches] if truth.has("gt_has_mask") else slice(None)
    return RegionSample(sample.boxes[:positives][kept], sample.labels[:positives][kept], sample.matches[kept])
