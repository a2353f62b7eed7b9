"""Counting mAcc: the mean over classes of each class's share of regions that were named rightly."""

import torch

from ..structures import DataError


class AccuracyCounter:
    """Top-1 and top-5 accuracy of regions, things and stuff apart.

    Counts are integers, so that the parts counted by several processes add up exactly.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int):
        # (is_thing, class, [regions, right at first, right among five])
        self.counts = torch.zeros(2, num_classes, 3, dtype=torch.int64)

    def add(self, ranked: torch.Tensor, labels: torch.Tensor, is_thing: torch.Tensor) -> None:
        """Count some regions.

        Args:
            ranked: (R, K) int64, K <= 5 labels by falling score.
            labels: (R,) int64, the truth.
            is_thing: (R,) bool.
        """
        ranked, labels, is_thing = ranked.cpu(), labels.cpu(), is_thing.cpu().long()
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.counts.shape[1]:
            raise DataError(
                f"Region labels must be 0 .. {self.counts.shape[1] - 1}; got {int(labels.min())} .. "
                f"{int(labels.max())}. The class names and the regions belong to different sets."
            )
        right = ranked == labels[:, None]  # (R, K)
        rows = torch.stack([torch.ones_like(labels), right[:, 0].long(), right.any(dim=1).long()], dim=1)  # (R, 3)
        self.counts.index_put_((is_thing, labels), rows, accumulate=True)

    def merge(self, other: "AccuracyCounter") -> None:
        """Add what another process counted."""
        self.counts += other.counts

    def of_class(self, label: int, *, things: bool) -> tuple[int, int, int]:
        """(regions, right at first, right among five) of one class, as things or as stuff."""
        regions, top1, top5 = self.counts[int(things), label].tolist()
        return regions, top1, top5

    def accuracy(self, *, things: bool) -> tuple[float, float]:
        """(top-1, top-5) in percent: the mean over the classes that have regions; NaN when none has."""
        counts = self.counts[int(things)].double()
        present = counts[:, 0] > 0
        if not present.any():
            return float("nan"), float("nan")
        shares = counts[present, 1:] / counts[present, :1]  # (classes present, 2)
        top1, top5 = (100.0 * shares.mean(dim=0)).tolist()
        return top1, top5
