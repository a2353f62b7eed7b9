"""Pixel-adaptive mask refinement (PAMR; Araslanov and Roth, CVPR 2020): score maps follow the colors of the picture.

Shape letters: q score maps, P neighbors (8 per dilation), (h, w) pixels.
"""

import torch
from torch.nn import functional as F

DILATIONS = (8, 16)
_CONTRAST = 0.1  # of the local standard deviation: what makes neighbors differ
_OFFSETS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


def affinities(picture: torch.Tensor, dilations: tuple[int, ...] = DILATIONS) -> torch.Tensor:
    """(c, h, w) normalized picture -> (P, h, w) weights of each pixel's neighbors; they sum to 1 over P.

    A neighbor's weight falls with its color's distance, relative to the standard deviation of the colors around.
    """
    neighbors = torch.stack([one for d in dilations for one in _shifted(picture, d)], dim=1)  # (c, P, h, w)
    center = picture.unsqueeze(1)
    around = torch.cat([neighbors, center.expand(-1, len(dilations), -1, -1)], dim=1)  # 9 per dilation
    contrast = 1e-8 + _CONTRAST * around.std(dim=1, keepdim=True)
    return (-(neighbors - center).abs() / contrast).mean(dim=0).softmax(dim=0)


def refined(
    maps: torch.Tensor, weights: torch.Tensor, steps: int, dilations: tuple[int, ...] = DILATIONS
) -> torch.Tensor:
    """(q, h, w) score maps, each pixel replaced `steps` times by the weighted mean of its neighbors.

    Args:
        weights: (P, h, w) of `affinities`, of the same dilations.
    """
    for _ in range(steps):
        result = torch.zeros_like(maps)
        neighbors = (one for d in dilations for one in _shifted(maps, d))
        for neighbor, weight in zip(neighbors, weights, strict=True):
            result += neighbor * weight
        maps = result
    return maps


def _shifted(maps: torch.Tensor, dilation: int):
    """The 8 neighbors at a distance, (q, h, w) each; border pixels are repeated outside."""
    h, w = maps.shape[-2:]
    padded = F.pad(maps[None], (dilation,) * 4, mode="replicate")[0]
    for i, j in _OFFSETS:
        top, left = dilation * (1 + i), dilation * (1 + j)
        yield padded[:, top : top + h, left : left + w]
