"""Dense features as pictures: similarity to one patch, and the first three principal components as colors.

Shape letters: E channels, (h, w) cells, (H, W) pixels.
"""

from collections.abc import Mapping

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from ..structures import DataError
from .canvas import enlarge, font, grid_of_pictures


def similarity_map(features: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Cosine of every cell's feature to that of one cell.

    Args:
        features: (E, h, w).
        cell: (row, column) of the query.

    Returns:
        (h, w) in -1..1, 1 at the query.
    """
    unit = F.normalize(_checked(features).float(), dim=0)
    row, column = cell
    if not (0 <= row < unit.shape[1] and 0 <= column < unit.shape[2]):
        raise DataError(f"The query cell (row, column) = {cell} is outside the map of {tuple(unit.shape[1:])} cells.")
    return torch.einsum("ehw,e->hw", unit, unit[:, row, column])


def cell_of_point(point: tuple[float, float], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """The cell (row, column) over a point (y, x) of a picture of `size` (H, W), for a map of `grid` (h, w) cells."""
    return tuple(min(int(p * g / s), g - 1) for p, s, g in zip(point, size, grid, strict=True))


def similarity_picture(
    picture: np.ndarray,
    encoders: Mapping[str, torch.Tensor],
    point: tuple[float, float],
    *,
    limits: tuple[float, float] = (0.0, 1.0),
    min_side: int = 320,
) -> np.ndarray:
    """The picture with a marked point, and beside it each encoder's similarity to it, on one color scale.

    Args:
        picture: (H, W, 3) uint8 RGB.
        encoders: Name -> dense features (E, h, w) over the whole picture; grids may differ.
        point: (y, x) pixels of the picture.
        limits: The cosines at the ends of the scale, the same for all encoders so that they can be compared.
        min_side: Small pictures are enlarged to it.
    """
    large, factor = enlarge(picture, min_side)
    center = (point[0] * factor, point[1] * factor)
    panels = [_marked(large, center)]
    for features in encoders.values():
        cell = cell_of_point(point, picture.shape[:2], features.shape[1:])
        shown = (similarity_map(features, cell).cpu().numpy() - limits[0]) / (limits[1] - limits[0])
        heat = (matplotlib.colormaps["viridis"](shown.clip(0, 1))[..., :3] * 255).round().astype(np.uint8)
        heat = Image.fromarray(heat).resize((large.shape[1], large.shape[0]), Image.Resampling.NEAREST)
        panels.append(_marked(np.array(heat), center))
    panels.append(_scale(large.shape[0], limits))
    return grid_of_pictures([panels], column_titles=["query", *encoders, "cosine"])


def pca_basis(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (E,) and the first three principal directions (E, 3) of L2-normalized features (..., E, h, w)."""
    rows = F.normalize(features.float(), dim=-3).movedim(-3, -1).reshape(-1, features.shape[-3])  # (N, E)
    mean = rows.mean(dim=0)
    directions = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:3].T  # (E, 3)
    peaks = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return mean, directions * peaks.sign()  # the sign of a direction is arbitrary: fix it


def pca_rgb(features: torch.Tensor, basis: tuple[torch.Tensor, torch.Tensor] | None = None) -> np.ndarray:
    """The first three principal components as red, green, blue.

    Args:
        features: (E, h, w), E >= 3.
        basis: Basis from pca_basis over several maps, for the same colors in all; None for this map's own.

    Returns:
        (h, w, 3) uint8; each channel runs from its 2nd to its 98th percentile.
    """
    mean, directions = basis or pca_basis(_checked(features))
    rows = F.normalize(features.float(), dim=0).flatten(1).T  # (N, E)
    components = (rows - mean) @ directions  # (N, 3)
    low, high = components.quantile(0.02, dim=0), components.quantile(0.98, dim=0)
    colors = ((components - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)
    return (colors * 255).round().to(torch.uint8).reshape(*features.shape[1:], 3).cpu().numpy()


def pca_picture(picture: np.ndarray, encoders: Mapping[str, torch.Tensor], *, min_side: int = 320) -> np.ndarray:
    """The picture, and beside it each encoder's principal components; arguments as for similarity_picture."""
    large, _ = enlarge(picture, min_side)
    panels = [large]
    for features in encoders.values():
        colors = Image.fromarray(pca_rgb(features))
        panels.append(np.array(colors.resize((large.shape[1], large.shape[0]), Image.Resampling.NEAREST)))
    return grid_of_pictures([panels], column_titles=["image", *encoders])


def _checked(features: torch.Tensor) -> torch.Tensor:
    if features.ndim != 3:
        raise DataError(f"A dense map must be (E, h, w); got {tuple(features.shape)}. Take one image of the batch.")
    return features


def _marked(picture: np.ndarray, center: tuple[float, float]) -> np.ndarray:
    """A white ring with a dark rim and a red point at (y, x)."""
    sheet = Image.fromarray(picture)
    draw = ImageDraw.Draw(sheet)
    radius = max(5, min(picture.shape[:2]) // 50)
    y, x = center
    for size, color, width in ((radius + 2, (0, 0, 0), 4), (radius + 1, (255, 255, 255), 2)):
        draw.ellipse((x - size, y - size, x + size, y + size), outline=color, width=width)
    draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(230, 30, 30))
    return np.array(sheet)


def _scale(height: int, limits: tuple[float, float]) -> np.ndarray:
    """A color bar of the given height with its ends and middle written beside it."""
    text = font(max(13, height // 26))
    ramp = matplotlib.colormaps["viridis"](np.linspace(1, 0, height))[:, None, :3]
    sheet = np.full((height, 20 + int(text.getlength("-0.00")) + 14, 3), 255, dtype=np.uint8)
    sheet[:, :20] = (ramp * 255).round().astype(np.uint8)
    bar = Image.fromarray(sheet)
    draw = ImageDraw.Draw(bar)
    for position, anchor in ((1.0, "lt"), (0.5, "lm"), (0.0, "lb")):
        value = limits[0] + position * (limits[1] - limits[0])
        draw.text((28, (1 - position) * (height - 1)), f"{value:.2f}", (20, 20, 20), text, anchor)
    return np.array(bar)
