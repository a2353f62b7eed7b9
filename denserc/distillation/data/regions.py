"""Sources of the regions to distill: random grids, or proposals read from files.

Boxes are (x1, y1, x2, y2), normalized: 0..1 of the image itself, before any padding.
Shape letter: K regions of one image.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import torch

from ...data.proposals import ProposalTable, id_key
from ...structures import ConfigurationError, DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageRecord:
    """One image of a training set.

    Args:
        path: Path of the file.
        image_id: Id in an annotation file; the path where there is none.
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
    """Set of grids m x n (rows x columns) to draw from, each with the same probability."""

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
        max_split: Largest number of rows and columns (6 in the paper).
        rule: Set of grids to draw from.
        max_regions: The cap on the cells kept of one image (20 in CLIPSelf and DeCLIP); 0 keeps all.
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


class WithoutProposals(Enum):
    """Treatment of an image without proposals."""

    GRID = "grid"  # it takes a grid's cells
    DROP = "drop"  # it is left out of the data set, before the first draw


class ProposalRegions:
    """A random choice of an image's proposals, at most `max_regions` of them.

    CLIPSelf (ProposalDistillDataset), whose protocol the paper's supplement 7.2 names, shuffles an image's proposals,
    takes the first 20 and leaves out of these the ones under 8^2 or over 1024^2 pixels; without any left it distils
    the image's upper left quarter. The limits are the same here (ProposalLimits), but unusable boxes are left out
    before the draw, so an image with 20 usable ones gives 20, and an image without any gets what `fallback` draws.
    Its crops, enlarged by 1.5 about their centers, are DISTILL.CROP_SCALE.

    Args:
        records: The images of the data set.
        tables: File name -> its proposals.
        max_regions: Largest number of regions per image; 0 for all.
        fallback: Source of regions for an image without usable proposals.

    Raises:
        DataError: A file fits none of the images, or an id fits two of them.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        tables: Mapping[str, ProposalTable],
        *,
        max_regions: int = 20,
        fallback: RegionSource,
    ):
        if not tables:
            raise ConfigurationError("Name at least one file of proposals in DISTILL.REGIONS.PROPOSALS.")
        if max_regions < 0:
            raise ConfigurationError(f"max_regions must be 0 (all) or more; got {max_regions}.")
        self.max_regions = max_regions
        self.fallback = fallback
        self._boxes = [table.boxes for table in tables.values()]
        # path -> [(table, first row, last row + 1)]
        self._rows: dict[str, list[tuple[int, int, int]]] = {}
        for number, (file, table) in enumerate(tables.items()):
            for path, span in match_images(records, table, file).items():
                self._rows.setdefault(path, []).append((number, *span))
        logger.info(f"{len(self._rows)} of {len(records)} images have proposals.")

    def covers(self, record: ImageRecord) -> bool:
        """True for an image with proposals."""
        return record.path in self._rows

    def sample(self, record: ImageRecord, rng: random.Random) -> torch.Tensor:
        """(K, 4) float32 boxes, 0..1 of the image, cut at its edges; needs the record's size."""
        rows = self._rows.get(record.path)
        if rows is None:
            return self.fallback.sample(record, rng)
        height, width = record.size
        boxes = np.concatenate([self._boxes[number][first:end] for number, first, end in rows])
        boxes = boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)]
        if not len(boxes):
            return self.fallback.sample(record, rng)
        chosen = rng.sample(range(len(boxes)), min(len(boxes), self.max_regions or len(boxes)))
        return torch.from_numpy(boxes[chosen]) / torch.tensor([width, height, width, height], dtype=torch.float32)


def match_images(records: Sequence[ImageRecord], table: ProposalTable, file: str) -> dict[str, tuple[int, int]]:
    """Path of each image that a file has proposals for -> their rows.

    Ids are compared as `id_key` writes them. An image that has no id of its own (a folder's) goes by its path, its
    file name, or that name without its suffix, so "000000000139.jpg" is image 139.

    Raises:
        DataError: The file fits no image, or one id fits two.
    """
    owner: dict[str, str] = {}
    for record in records:
        key = next((key for key in _keys(record) if key in table.spans), None)
        if key is None:
            continue
        if key in owner:
            raise DataError(
                f"{file}: the proposals of image {key} fit two images, {owner[key]} and {record.path}. Distil the "
                "two sources one after the other, or give their images different ids."
            )
        owner[key] = record.path
    if not owner:
        ours = [key for record in records[:3] for key in _keys(record)[-1:]]
        raise DataError(
            f"{file} has proposals of none of the {len(records)} images. Its ids are like {list(table.spans)[:3]}, the "
            f"images' like {ours}. Write it for the same data set, or name that set's annotation file as the source."
        )
    return {path: table.spans[key] for key, path in owner.items()}


def _keys(record: ImageRecord) -> list[str]:
    if record.image_id != record.path:
        return [id_key(record.image_id)]
    name = record.path.replace("\\", "/").rsplit("/", 1)[-1]
    return [record.path, name, id_key(name.rsplit(".", 1)[0])]
