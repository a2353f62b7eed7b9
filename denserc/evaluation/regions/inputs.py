"""Regions of an image as input of an encoder: the padded square, boxes and masks in its frame, crops.

Shape letters: (H, W) pixels of the original image, S side of the square input, (h, w) cells of the feature map,
R regions of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...data.images.reading import read_rgb
from ...data.images.resizing import centered_square, corner_square
from ...structures import DataError, PixelStatistics


@dataclass(frozen=True)
class Region:
    """One labeled segment of an image.

    Args:
        label: Index of its class, classes being sorted by category id.
        is_thing: A countable object, not "stuff".
        box: (x1, y1, x2, y2) pixels of the original image.
        mask: (H, W) bool.
    """

    label: int
    is_thing: bool
    box: tuple[float, float, float, float]
    mask: np.ndarray


@dataclass(frozen=True)
class RegionLimits:
    """Limits of the segments that are classified; the defaults are the published protocol.

    Args:
        min_side, max_side: Segments whose box has an area (width x height, in pixels of the original image) under
            min_side^2 or over max_side^2 are skipped.
        max_segments: Number of segments per image that are read, skipped ones counted.
    """

    min_side: float = 8.0
    max_side: float = 1024.0
    max_segments: int = 100

    def choose(self, segments: Sequence[dict[str, Any]]) -> list[Region]:
        """The regions of an image's segments.

        Args:
            segments: Dicts with "label" (int), "isthing" (bool), "mask" (H, W) bool and, for things, "bbox"
                (x1, y1, x2, y2) as the annotation file gives it. Stuff boxes are taken from the mask. Crowds are
                kept, as in the published protocol.
        """
        chosen = []
        for segment in segments[: self.max_segments]:
            mask = np.asarray(segment["mask"], dtype=bool)
            is_thing = bool(segment["isthing"])
            if not mask.any():
                continue
            box = tuple(float(v) for v in segment["bbox"]) if is_thing else box_of_mask(mask)
            area = (box[2] - box[0]) * (box[3] - box[1])
            if self.min_side**2 <= area <= self.max_side**2:
                chosen.append(Region(int(segment["label"]), is_thing, box, mask))
        return chosen


PUBLISHED_LIMITS = RegionLimits()


def box_of_mask(mask: np.ndarray) -> tuple[float, float, float, float]:
    """(H, W) bool, not empty -> the smallest (x1, y1, x2, y2) around its pixels, the last pixel included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def picture_of(entry: dict[str, Any]) -> Image.Image:
    """An entry's "image" ((H, W, 3) uint8 RGB) or the file "file_name", as an RGB picture.

    EXIF rotation is not applied: panoptic masks follow the stored pixels.

    Raises:
        DataError: Neither is given, or the image is not one.
        UnreadableImageError: The file is absent, damaged or too large.
    """
    if "image" in entry:
        image = np.asarray(entry["image"])
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise DataError(f"An image must be (H, W, 3) uint8 RGB; got {image.shape} {image.dtype}.")
        return Image.fromarray(image)
    if "file_name" not in entry:
        raise DataError(f"A region entry needs 'image' or 'file_name'; it has {sorted(entry)}.")
    return Image.fromarray(read_rgb(entry["file_name"], upright=False))


def fit_square(image: Image.Image, side: int) -> tuple[np.ndarray, float]:
    """Resize the longest side to `side` (bicubic), pad right and below with black.

    Returns:
        (side, side, 3) uint8, and the scale from original pixels to pixels of the square.
    """
    return corner_square(image, side), side / max(image.size)


def crop_square(image: Image.Image, box: Sequence[float], side: int) -> np.ndarray:
    """Crop a box and resize its longest side to `side`, centered on black: (side, side, 3) uint8."""
    return centered_square(image.crop(tuple(box)), side)


def to_input(pictures: Sequence[np.ndarray], pixels: PixelStatistics, device: torch.device) -> torch.Tensor:
    """B pictures (S, S, 3) uint8 -> (B, 3, S, S) float32, normalized."""
    stacked = torch.from_numpy(np.stack(pictures)).to(device)
    return pixels.normalize(stacked.permute(0, 3, 1, 2).float() / 255.0)


def mask_cells(masks: np.ndarray, scale: float, side: int, grid: tuple[int, int], coverage: float) -> torch.Tensor:
    """Masks at the resolution of the feature map.

    Args:
        masks: (R, H, W) bool in the original image's frame.
        scale: Original pixels -> pixels of the square input.
        side: S, of the square input.
        grid: (h, w) of the feature map over it.
        coverage: A cell belongs to a mask when more than this share of the cell is covered; with 0 every cell that
            the mask touches (the published protocol's reading), so that no mask becomes empty.

    Returns:
        (R, h, w) bool.
    """
    rows = _overlap(masks.shape[1], scale, side / grid[0], grid[0])  # (h, H)
    columns = _overlap(masks.shape[2], scale, side / grid[1], grid[1])  # (w, W)
    share = rows @ torch.from_numpy(masks).float() @ columns.T  # (R, h, w), in 0..1
    return share > max(coverage, 1e-6)  # 1e-6: rounding does not count as touching


def _overlap(pixels: int, scale: float, cell: float, cells: int) -> torch.Tensor:
    """(cells, pixels): the share of each cell of length `cell` that each scaled pixel covers, along one axis."""
    starts = torch.arange(pixels, dtype=torch.float64) * scale
    cell_starts = torch.arange(cells, dtype=torch.float64)[:, None] * cell
    shared = torch.minimum(starts + scale, cell_starts + cell) - torch.maximum(starts, cell_starts)
    return (shared.clamp(min=0) / cell).float()
