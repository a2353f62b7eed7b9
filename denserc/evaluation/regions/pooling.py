"""Features of boxes and masks from a dense map, their nearest classes, and the count of correct ones.

Shape letters: B images, E the width of the image-text space, (h, w) cells, R regions of all images together, C classes.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ...structures import DataError
from ...structures.boxes import pool_cells


class AccuracyCounter:
    """Counter of the top-1 and top-5 accuracy of regions, things and stuff apart.

    Counts are integers, so that the parts counted by several processes add up exactly.

    Args:
        num_classes: Number C of classes.
    """

    def __init__(self, num_classes: int):
        # (is_thing, class, [regions, right at first, right among five])
        self.counts = torch.zeros(2, num_classes, 3, dtype=torch.int64)

    def add(self, ranked: torch.Tensor, labels: torch.Tensor, is_thing: torch.Tensor) -> None:
        """Count some regions.

        Args:
            ranked: (R, K) int64, K <= 5 labels by falling score.
            labels: (R,) int64, the truth.
            is_thing: (R,) bool, True for things.
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
        """Add the counts of another process."""
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


def pool_boxes(features: torch.Tensor, boxes: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """Average the features in each box.

    Args:
        features: (B, E, h, w).
        boxes: B tensors (R_b, 4), (x1, y1, x2, y2) in pixels of the square input.
        side: Side of the square input, pixels.

    Returns:
        (R, E), image after image.
    """
    h, w = features.shape[-2:]
    # To 0..1 in float32 and back to cells, in this order: the adaptive sampling count, ceil(box size in cells),
    # flips with the last bit, and the published figures were made so.
    cells = features.new_tensor([w, h, w, h])
    scaled = [b.to(features) / side * cells for b in boxes]
    return pool_cells(features, scaled)


def pool_masks(features: torch.Tensor, masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Average the features in each mask; an empty mask gives zeros.

    Args:
        features: (B, E, h, w).
        masks: B tensors (R_b, h, w), bool.

    Returns:
        (R, E), image after image.
    """
    pooled = []
    for feature, mask in zip(features, masks, strict=True):
        weight = mask.to(feature).flatten(1)  # (R_b, h * w)
        pooled.append(weight @ feature.flatten(1).T / (weight.sum(dim=1, keepdim=True) + 1e-12))  # (R_b, E)
    return torch.cat(pooled)


def nearest_classes(features: torch.Tensor, text: torch.Tensor, k: int = 5) -> torch.Tensor:
    """(R, E) features and (C, E) unit text vectors -> (R, min(k, C)) int64 labels by falling cosine."""
    similarity = F.normalize(features, dim=-1) @ text.T  # (R, C)
    return similarity.topk(min(k, len(text)), dim=-1).indices
