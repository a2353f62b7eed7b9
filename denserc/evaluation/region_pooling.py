"""Region features from a dense feature map.

Shape letters: B images, E the width of the image-text space, (h, w) cells, R regions of all images together.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torchvision.ops import roi_align


def pool_boxes(features: torch.Tensor, boxes: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """RoIAlign to 1 x 1, adaptive sampling, half-pixel aligned.

    Args:
        features: (B, E, h, w).
        boxes: B tensors (R_b, 4), (x1, y1, x2, y2) in pixels of the square input.
        side: of the square input.

    Returns:
        (R, E), image after image.
    """
    h, w = features.shape[-2:]
    # To 0..1 in float32 and back to cells, in this order: the adaptive sampling count, ceil(box size in cells),
    # flips with the last bit, and the published figures were made so.
    cells = features.new_tensor([w, h, w, h])
    scaled = [b.to(features) / side * cells for b in boxes]
    return roi_align(features, scaled, output_size=(1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True)[
        ..., 0, 0
    ]


def pool_masks(features: torch.Tensor, masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the features in each mask; an empty mask gives zeros.

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
