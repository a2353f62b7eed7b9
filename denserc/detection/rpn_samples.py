"""What an RPN's head says of a few anchors, computed from the cells around them alone.

A head of n convolutions of 3 x 3 without normalisation sees (2 n + 1) x (2 n + 1) cells. Some hundred of an image's
100,000 anchors take part in the losses: their windows cost a hundredth of the maps, above all in the backward pass.

Shape letters: B images, C channels, A anchors a cell, S anchors asked for, K = 2 n + 1 the side of a window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


def predict_at(
    head: nn.Module, features: Sequence[torch.Tensor], images: torch.Tensor, anchors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The head's predictions for some anchors, with gradients to its weights and to the maps.

    Args:
        head: an RPNHead that is `local`.
        features: maps (B, C, h, w), finest first.
        images: (S,) int64, the image of each anchor.
        anchors: (S,) int64, its place among all anchors of that image (level, y, x, ratio).

    Returns:
        Logits (S,) and differences (S, 4), in the order given: the head's own but for rounding.
    """
    cells, ratios = anchors // head.num_anchors, anchors % head.num_anchors
    reach, first = len(head.convs), 0
    windows, insides, places = [], [], []
    for feature in features:
        size = feature.shape[-2] * feature.shape[-1]
        if feature.requires_grad and feature.is_contiguous():
            # Gathered rows hand back a gradient in channels-last order, which the backward pass of a pyramid of planes
            # would carry on, slower and in its norms less exact.
            feature.register_hook(torch.Tensor.contiguous)
        here = ((cells >= first) & (cells < first + size)).nonzero().flatten()
        window, inside = cut_windows(feature, images[here], cells[here] - first, reach)
        windows.append(window)
        insides.append(inside)
        places.append(here)
        first += size
    hidden, inside = torch.cat(windows), torch.cat(insides)  # (S, C, K, K), (S, 1, K, K)
    for conv in head.convs:
        # Beyond the map the next convolution sees zeros, not what this one makes of the cells near the border.
        inside = inside[:, :, 1:-1, 1:-1]
        hidden = F.relu(F.conv2d(hidden, conv.conv.weight, conv.conv.bias)) * inside
    places = torch.cat(places)
    ratios = ratios[places]
    logits = head.objectness(hidden).flatten(1).gather(1, ratios[:, None])[:, 0]
    deltas = head.deltas(hidden).flatten(1).unflatten(1, (head.num_anchors, 4))  # (S, A, 4)
    deltas = deltas[torch.arange(len(ratios), device=ratios.device), ratios]
    order = places.argsort()
    return logits[order], deltas[order]


def cut_windows(
    feature: torch.Tensor, images: torch.Tensor, cells: torch.Tensor, reach: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Square windows of one map around some cells, zeros beyond its border.

    Args:
        feature: (B, C, h, w).
        images, cells: (S,) int64: which image, and y * w + x.
        reach: cells on each side of the middle one.

    Returns:
        (S, C, K, K) in channels-last order, and (S, 1, K, K): 1 within the map, 0 beyond.
    """
    channels, h, w = feature.shape[1:]
    steps = torch.arange(-reach, reach + 1, device=cells.device)
    y = (cells // w)[:, None, None] + steps[:, None]  # (S, K, 1)
    x = (cells % w)[:, None, None] + steps  # (S, 1, K)
    inside = ((y >= 0) & (y < h) & (x >= 0) & (x < w)).to(feature.dtype)  # (S, K, K)
    rows = (images[:, None, None] * h + y.clamp(0, h - 1)) * w + x.clamp(0, w - 1)
    table = feature.permute(0, 2, 3, 1).reshape(-1, channels)
    # index_select, whose gradient is added row by row; that of table[rows] sorts first.
    window = table.index_select(0, rows.flatten()).view(*rows.shape, channels) * inside[..., None]
    return window.permute(0, 3, 1, 2), inside[:, None]
