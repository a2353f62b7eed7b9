"""The two losses of DenseRC.

Shape letters: B images, N = h * w patch tokens, E the width of the image-text space, C the width
of the foundation model, K regions of one image, R regions of the batch.
"""

from collections.abc import Sequence
from enum import Enum

import torch
import torch.nn.functional as F
from torchvision.ops import roi_align


class PooledMap(Enum):
    """Which dense map the regions are pooled from."""

    RAW = "raw"  # DeCLIP; DenseRC follows it
    NORMALIZED = "normalized"  # CLIPSelf: unit vectors per token before pooling


class CoherenceReading(Enum):
    """Two readings of Eq. 20, which writes (1 / N^2) ||G_s - G_t||_2."""

    MSE = "mse"  # the mean of the squared differences: ||G_s - G_t||_F^2 / N^2
    NORM = "norm"  # the formula to the letter: ||G_s - G_t||_F / N^2


def pool_regions(dense: torch.Tensor, boxes: Sequence[torch.Tensor], pooled_map: PooledMap) -> torch.Tensor:
    """RoIAlign to 1 x 1 (aligned, adaptive sampling) of normalised boxes.

    Args:
        dense: (B, E, h, w).
        boxes: B tensors (K, 4), (x1, y1, x2, y2) in 0..1 of the network input.
        pooled_map: whether tokens are unit vectors before they are pooled.

    Returns:
        (R, E), image by image; not normalised.
    """
    h, w = dense.shape[-2:]
    if pooled_map is PooledMap.NORMALIZED:
        dense = F.normalize(dense, dim=1)
    cells = [(box * box.new_tensor([w, h, w, h])).to(dense.dtype) for box in boxes]
    return roi_align(dense, cells, output_size=(1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True)[..., 0, 0]


def semantics_loss(
    regions: torch.Tensor, targets: torch.Tensor, normalizer: torch.Tensor | float | None = None
) -> torch.Tensor:
    """L_semantics: 1 - cosine between pooled student regions and the teacher's embeddings of their crops.

    Args:
        regions: (R, E).
        targets: (R, E), without gradient.
        normalizer: what the sum over regions is divided by; None = R, the mean. Ranks and accumulated
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
    ||X X' - Y Y'||_F^2 = ||X' X||_F^2 + ||Y' Y||_F^2 - 2 ||X' Y||_F^2.

    Args:
        student: (B, N, E), not normalised.
        target: (B, N, C), not normalised, without gradient.
        reading: of Eq. 20.
        mask: (B, N) bool, the tokens that count (N is then their number); None counts all, as the originals do.

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
    if tokens <= max(x.shape[-1], y.shape[-1]):
        squared = (x @ x.mT - y @ y.mT).square().sum(dim=(1, 2))  # (B,)
    else:
        # The three terms nearly cancel late in training: they are summed in double precision where there is one.
        squared = _squared_sum(x.mT @ x) + _squared_sum(y.mT @ y) - 2 * _squared_sum(x.mT @ y)
    if reading is CoherenceReading.MSE:
        return (squared.clamp(min=0) / count.square()).mean().to(student.dtype)
    # The root has no slope at 0; below the floor its gradient is 0 instead of not-a-number.
    return (squared.clamp(min=1e-12).sqrt() / count.square()).mean().to(student.dtype)


def _squared_sum(matrices: torch.Tensor) -> torch.Tensor:
    """(B, p, q) -> (B,), accumulated in float64 except on Apple devices, which have none."""
    if matrices.device.type != "mps":
        matrices = matrices.double()
    return matrices.square().sum(dim=(1, 2))
