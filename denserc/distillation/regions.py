"""Which regions of an image are distilled.

Boxes are (x1, y1, x2, y2), normalised: 0..1 of the image itself, before any padding.
K is the number of regions of one image.
"""

import random
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch

from ..structures import ConfigurationError


@dataclass(frozen=True)
class ImageRecord:
    """One image of a training set.

    Args:
        path: the file.
        image_id: its id in an annotation file; the path where there is none.
        size: (h, w) upright, known once the image has been read.
    """

    path: str
    image_id: int | str
    size: tuple[int, int] | None = None


class RegionSource(Protocol):
    """Anything that names the regions of an image: a random grid, proposals from a file."""

    def sample(self, record: ImageRecord, rng: random.Random) -> torch.Tensor:
        """(K, 4) float32 boxes, 0..1 of the image; K >= 1; `record` has its size; all chance comes from `rng`."""
        ...


class GridRule(Enum):
    """Which grids m x n (rows x columns) may be drawn, each with the same probability."""

    UNIFORM = "uniform"  # m and n independent in 1..M: the paper, supplement 7.1
    CLIPSELF = "clipself"  # n in ceil(m / 2)..min(2 m, M): no cell is more than twice as flat as the image


def grid_choices(max_split: int, rule: GridRule) -> list[tuple[int, int]]:
    """All grids (rows m, columns n) with m, n <= max_split that a rule allows, in order."""
    if max_split < 1:
        raise ConfigurationError(f"A grid needs a max_split of at least 1; got {max_split}.")
    choices = []
    for m in range(1, max_split + 1):
        if rule is GridRule.UNIFORM:
            columns = range(1, max_split + 1)
        else:
            columns = range((m + 1) // 2, min(2 * m, max_split) + 1)
        choices.extend((m, n) for n in columns)
    return choices


def grid_boxes(rows: int, columns: int) -> torch.Tensor:
    """The cells of a grid, row by row: (rows * columns, 4) float32, 0..1 of the image."""
    x = torch.linspace(0, 1, columns + 1)
    y = torch.linspace(0, 1, rows + 1)
    y1, x1 = torch.meshgrid(y[:-1], x[:-1], indexing="ij")
    y2, x2 = torch.meshgrid(y[1:], x[1:], indexing="ij")
    return torch.stack([x1, y1, x2, y2], dim=-1).reshape(-1, 4)


class GridRegions:
    """A random grid's cells, in random order, at most `max_regions` of them.

    Args:
        max_split: the most rows and columns (6 in the paper).
        rule: which of the grids may be drawn.
        max_regions: the cap on the cells kept of one image (20 in the originals); 0 keeps all.
    """

    def __init__(self, *, max_split: int = 6, rule: GridRule = GridRule.UNIFORM, max_regions: int = 20):
        if max_regions < 0:
            raise ConfigurationError(f"max_regions must be 0 (all) or more; got {max_regions}.")
        self.choices = grid_choices(max_split, rule)
        self.max_regions = max_regions

    def sample(self, record: ImageRecord, rng: random.Random) -> torch.Tensor:
        """(K, 4) float32 boxes, 0..1 of the image."""
        rows, columns = rng.choice(self.choices)
        order = list(range(rows * columns))
        rng.shuffle(order)
        if self.max_regions:
            order = order[: self.max_regions]
        return grid_boxes(rows, columns)[order]
