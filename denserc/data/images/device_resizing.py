"""Pillow's bicubic resizing of many windows of many images at once, on any device, bitwise identical.

Pillow resizes the columns, rounds to 8 bits, and resizes the rows (Resample.c; `squares.resize` keeps that order). Each
output is a sum of a few input pixels, the taps, with weights in 22-bit fixed point; so integers give the same numbers
on every device, and there is no loop over windows: only one over the taps.

Shape letters: P pixels of all images, row by row; R windows, S the side of the squares, K taps, N rows of all windows.
Sizes are (h, w); boxes are (x1, y1, x2, y2) in whole pixels of their image.
"""

import math
from dataclasses import dataclass

import torch

_BITS = 22  # of the weights' fraction: Pillow's PRECISION_BITS


@dataclass(frozen=True)
class Windows:
    """Windows of pixels and the parts of a square they become; all tensors int64, on the CPU.

    Args:
        first: (R,) the place of the image's first pixel among the P.
        width: (R,) of the image.
        boxes: (R, 4) in the image, each at least one pixel wide and high.
        content: (R, 2) size to which the window is resized, at most the square's.
        corner: (R, 2) position of its upper left corner in the square, (y, x); the rest is black.
    """

    first: torch.Tensor
    width: torch.Tensor
    boxes: torch.Tensor
    content: torch.Tensor
    corner: torch.Tensor


def resize_windows(pixels: torch.Tensor, windows: Windows, side: int) -> torch.Tensor:
    """(P, 3) uint8 RGB -> (R, S, S, 3) uint8, on the device of the pixels.

    Takes about 50 bytes of memory for each of the N * S and 40 for each of the R * S * S pixels meanwhile.
    """
    x1, y1, x2, y2 = windows.boxes.unbind(1)
    heights, widths = y2 - y1, x2 - x1
    columns = _taps(widths, windows.content[:, 1], windows.corner[:, 1], side, pixels.device)
    rows = _taps(heights, windows.content[:, 0], windows.corner[:, 0], side, pixels.device)

    # The first pixel of each row of each window, and the first row of each window among all N.
    window = torch.repeat_interleave(torch.arange(len(heights)), heights)  # (N,)
    begin = heights.cumsum(0) - heights  # (R,)
    inside = torch.arange(len(window)) - begin[window]
    start = (windows.first + y1 * windows.width + x1)[window] + inside * windows.width[window]  # (N,)

    every = torch.arange(len(heights))
    start, window, begin, every = (t.to(pixels.device, non_blocking=True) for t in (start, window, begin, every))
    narrow = _weighted(pixels, start, window, columns)  # (N, S, 3)
    return _weighted(narrow.flatten(1), begin, every, rows).unflatten(2, (side, 3))


def _taps(
    lengths: torch.Tensor, contents: torch.Tensor, corners: torch.Tensor, side: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """One axis of R windows: for each of S outputs the pixels of the window to add up, and their weights.

    Returns:
        (K, R, S) int64 places in the window, and (K, R, S) int32 weights * 2^22; 0 for positions without a tap.
    """
    largest = max([1.0, *(lengths.double() / contents).tolist()])  # how much the axis shrinks
    taps = torch.arange(math.ceil(4 * largest), dtype=torch.float64)[:, None, None]
    output = torch.arange(side, dtype=torch.float64)
    # Double precision, as in Pillow; Apple's GPUs have none.
    where = torch.device("cpu") if device.type == "mps" else device
    length, content, corner = (t.double()[:, None].to(where, non_blocking=True) for t in (lengths, contents, corners))
    taps, output = taps.to(where, non_blocking=True), output.to(where, non_blocking=True)

    scale = length / content  # (R, 1)
    stretch = scale.clamp(min=1)  # the window that is averaged grows where pixels are lost
    center = (output - corner + 0.5) * scale  # (R, S)
    first = (center - 2 * stretch + 0.5).floor().clamp(min=0)
    last = torch.minimum((center + 2 * stretch + 0.5).floor(), length)
    place = first + taps  # (K, R, S)
    weight = _cubic((place - center + 0.5) * (1 / stretch)).where(place < last, 0)
    weight = weight / weight.sum(dim=0) * 2**_BITS
    weight = (weight + torch.where(weight < 0, -0.5, 0.5)).trunc()
    black = (output < corner) | (output >= corner + content)
    place = torch.minimum(place, length - 1).clamp(min=0)
    return place.long().to(device), weight.masked_fill(black, 0).int().to(device)


def _cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys' kernel with a = -0.5, in Pillow's order of operations."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return near.where(x < 1, far.where(x < 2, 0))


def _weighted(
    source: torch.Tensor, start: torch.Tensor, table: torch.Tensor, taps: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Sums of rows of the source, rounded and clamped to 0..255 as Pillow does.

    Args:
        source: (M, C) uint8.
        start: (N,) row of the source where a list of S outputs begins.
        table: (N,) which of the R lists of taps it takes.
        taps: Result of `_taps`.

    Returns:
        (N, S, C) uint8.
    """
    places, weights = taps
    shape = (len(start), places.shape[2], source.shape[1])
    total = torch.full(shape, 1 << (_BITS - 1), dtype=torch.int32, device=source.device)
    for place, weight in zip(places, weights, strict=True):  # (R, S)
        index = place.index_select(0, table) + start[:, None]
        total += source.index_select(0, index.flatten()).view(shape) * weight.index_select(0, table)[..., None]
    total >>= _BITS
    return total.clamp_(0, 255).to(torch.uint8)
