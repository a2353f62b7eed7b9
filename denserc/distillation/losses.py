"""The two losses of DenseRC.

Shape letters: B images, N = h * w patch tokens, E the width of the image-text space, C the width
of the foundation model, K regions of one image, R regions of the batch.
"""

from collections.abc import Sequence
from enum import Enum

import torch
import torch.nn.functional as F

from ..structures.boxes import pool_cells


class PooledMap(Enum):
    """Dense map that the regions are pooled from."""

    RAW = "raw"  # DeCLIP; DenseRC follows it
    NORMALIZED = "normalized"  # CLIPSelf: unit vectors per token before pooling


class CoherenceReading(Enum):
    """Two readings of Eq. 20, which writes (1 / N^2) ||G_s - G_t||_2, and what DeCLIP computes."""

    MSE = "mse"  # the mean of the squared differences: ||G_s - G_t||_F^2 / N^2
    NORM = "norm"  # the formula to the letter: ||G_s - G_t||_F / N^2
    ROW_NORM = "row_norm"  # the mean 2-norm of the rows of G_s - G_t: DeCLIP's context loss


class CoherenceFeatures(Enum):
    """Student's features whose correlations follow the foundation model's."""

    DENSE = "dense"  # X_dense itself, as L_semantics pools it: DenseRC
    CONTEXT = "context"  # what the last block correlates with itself (q): DeCLIP


def pool_regions(dense: torch.Tensor, boxes: Sequence[torch.Tensor], pooled_map: PooledMap) -> torch.Tensor:
    """Average the dense features in each box.

    Args:
        dense: (B, E, h, w).
        boxes: B tensors (K, 4), (x1, y1, x2, y2) in 0..1 of the network input.
        pooled_map: Map that is pooled: raw tokens or unit vectors.

    Returns:
        (R, E), image by image; not normalized.
    """
    h, w = dense.shape[-2:]
    if pooled_map is PooledMap.NORMALIZED:
        dense = F.normalize(dense, dim=1)
    cells = [(box * box.new_tensor([w, h, w, h])).to(dense.dtype) for box in boxes]
    return pool_cells(dense, cells)


def semantics_loss(
    regions: torch.Tensor, targets: torch.Tensor, normalizer: torch.Tensor | float | None = None
) -> torch.Tensor:
    """L_semantics: 1 - cosine between pooled student regions and the teacher's embeddings of their crops.

    Args:
        regions: (R, E) region embeddings.
        targets: (R, E), without gradient.
        normalizer: Divisor of the sum over regions; None = R, the mean. Ranks and accumulated
            batches with different R pass their common mean, so that together they equal one large batch.

    Returns:
        A scalar.
    """
    distance = 1 - F.cosine_similarity(regions, targets, dim=1)  # (R,)
    return distance.sum() / (len(distance) if normalizer is None else normalizer)


def coherence_loss(
    student: torch.Tensor,
    target: torch.Tensor,
    reading: CoherenceReading = CoherenceReading.MSE,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """L_coherence (supplement, Eq. 20): the student's token correlations follow the foundation model's.

    Where N exceeds the widths, the N x N matrices are never built, for
    ||X X' - Y Y'||_F^2 = ||X' X||_F^2 + ||Y' Y||_F^2 - 2 ||X' Y||_F^2, and likewise for its rows.

    Args:
        student: (B, N, E), not normalized.
        target: (B, N, C), not normalized, without gradient.
        reading: Reading of Eq. 20.
        mask: (B, N) bool, the tokens that count (N is then their number); None counts all, as CLIPSelf and DeCLIP do.

    Returns:
        A scalar, the mean over the images.
    """
    tokens = student.shape[1]
    x = F.normalize(student, dim=-1)  # (B, N, E)
    y = F.normalize(target, dim=-1)  # (B, N, C)
    count = x.new_full((len(x),), float(tokens))
    if mask is not None:
        x, y = x * mask.unsqueeze(-1), y * mask.unsqueeze(-1)
        count = mask.sum(dim=1).to(x.dtype).clamp(min=1)
    if reading is CoherenceReading.ROW_NORM:
        # The root has no slope at 0; below the floor its gradient is 0 instead of not-a-number.
        rows = _squared_rows(x, y).clamp(min=1e-12).sqrt()  # (B, N)
        if mask is not None:
            rows = rows * mask
        return (rows.sum(dim=1) / count).mean().to(student.dtype)
    squared = _squared_rows(x, y).sum(dim=1) if tokens <= max(x.shape[-1], y.shape[-1]) else _squared(x, y)
    if reading is CoherenceReading.MSE:
        return (squared.clamp(min=0) / count.square()).mean().to(student.dtype)
    return (squared.clamp(min=1e-12).sqrt() / count.square()).mean().to(student.dtype)


def _squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """||X X' - Y Y'||_F^2 of each image without the N x N matrices: (B, N, E), (B, N, C) -> (B,)."""
    # The three terms nearly cancel late in training: they are summed in double precision where there is one.
    return _squared_sum(x.mT @ x) + _squared_sum(y.mT @ y) - 2 * _squared_sum(x.mT @ y)


def _squared_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The squared 2-norm of each row of X X' - Y Y': (B, N, E), (B, N, C) -> (B, N)."""
    if x.shape[1] <= max(x.shape[-1], y.shape[-1]):
        return (x @ x.mT - y @ y.mT).square().sum(dim=2)
    x, y = _most_precise(x), _most_precise(y)
    # Row i is x_i X' - y_i Y', and (x_i X') (X x_i') = x_i (X' X) x_i'.
    own = ((x @ (x.mT @ x)) * x).sum(dim=2) + ((y @ (y.mT @ y)) * y).sum(dim=2)
    return own - 2 * ((x @ (x.mT @ y)) * y).sum(dim=2)


def _squared_sum(matrices: torch.Tensor) -> torch.Tensor:
    """(B, p, q) -> (B,)."""
    return _most_precise(matrices).square().sum(dim=(1, 2))


def _most_precise(tensor: torch.Tensor) -> torch.Tensor:
    """In float64 except on Apple devices, which have none."""
    return tensor if tensor.device.type == "mps" else tensor.double()
