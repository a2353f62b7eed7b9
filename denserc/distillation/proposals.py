"""Region proposals as the regions to distil, instead of a grid's cells."""

import logging
import random
from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import torch

from ..data.proposals import ProposalTable, id_key
from ..structures import ConfigurationError, DataError
from .regions import ImageRecord, RegionSource

logger = logging.getLogger(__name__)


class WithoutProposals(Enum):
    """What becomes of an image that has no proposals."""

    GRID = "grid"  # it takes a grid's cells
    DROP = "drop"  # it is left out of the data set, before the first draw


class ProposalRegions:
    """A random choice of an image's proposals, at most `max_regions` of them.

    CLIPSelf (ProposalDistillDataset), whose protocol the paper's supplement 7.2 names, shuffles an image's proposals,
    takes the first 20 and leaves out of these the ones under 8^2 or over 1024^2 pixels; without any left it distils
    the image's upper left quarter. The limits are the same here (ProposalLimits), but unusable boxes are left out
    before the draw, so an image with 20 usable ones gives 20, and an image without any gets what `fallback` draws.
    Its crops, enlarged by 1.5 about their centres, are DISTILL.CROP_SCALE.

    Args:
        records: the images of the data set.
        tables: file name -> its proposals.
        max_regions: the most regions of one image; 0 takes all.
        fallback: gives the regions of an image without usable proposals.

    Raises:
        DataError: a file fits none of the images, or an id fits two of them.
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
        """Whether an image has proposals."""
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
        DataError: the file fits no image, or one id fits two.
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
