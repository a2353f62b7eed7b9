"""Which ground-truth box a candidate box stands for, and which candidates take part in a loss.

Shape letters: R candidate boxes, G ground-truth boxes.
"""

from collections.abc import Callable

import torch
from detectron2.structures import Boxes, pairwise_iou

from .options import LowQualityMatch

NEGATIVE = -1
IGNORED = -2

Sampler = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class IoUMatcher:
    """Gives each candidate the ground-truth box that it overlaps most, if it overlaps it enough.

    Args:
        positive_iou: from this IoU on a candidate is positive.
        negative_iou: below it a candidate is negative; between the two it is ignored.
        low_quality: see LowQualityMatch.
        low_quality_iou: least IoU of a match by LowQualityMatch.OVERWRITE.
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
        # Of several ground-truth boxes that claim one candidate the original's loop lets the last one win.
        rank = torch.arange(1, len(truth) + 1, device=truth.device)[:, None]
        claimed_by = (chosen * rank).max(dim=0).values - 1
        return torch.where(claimed_by >= 0, claimed_by, matches)


class RandomSampler:
    """Draws positives up to a share of a fixed number and fills up with negatives.

    Args:
        num: how many candidates of an image take part in the loss, at most.
        positive_fraction: the largest share of positives.
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
