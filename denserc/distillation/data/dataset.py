"""Stream of training images with their regions."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from ...data.images.reading import read_rgb
from ...data.images.resizing import BicubicKernel
from ...engine import shield_worker
from ...engine.stream import PositionSampler, PositionStream
from ...structures import ConfigurationError
from .batch import DistillationBatch, DistillationSample
from .crops import CropTransform, content_extent, padded_square, to_padded_square
from .regions import ImageRecord, RegionSource
from .views import RawBatch, RawSample, ViewPlace, ViewSizes


class DistillationDataset(PositionStream):
    """An endless stream of images with random regions, which depend only on the seed and the position.

    An unreadable image is passed over for the next of the list and named in the sample, so that
    the batch keeps its size and the trainer can count and report it.

    Args:
        records: Records of the images.
        regions: Source of an image's regions.
        crops: Transform from regions to the teacher's input.
        student_size: Side of the student's square.
        foundation_size: Side of the foundation model's square, or None for no such view.
        seed: Seed of the order and the regions.
        resampling: Resampling of the two squares; the crops have their own.
        views: Place where views are made: the loader, or the device (only with Pillow's resampling).
    """

    def __init__(
        self,
        *,
        records: Sequence[ImageRecord],
        regions: RegionSource,
        crops: CropTransform,
        student_size: int,
        foundation_size: int | None,
        seed: int = 0,
        resampling: BicubicKernel = BicubicKernel.PILLOW,
        views: ViewPlace = ViewPlace.LOADER,
    ):
        super().__init__(list(records), seed=seed)
        if views is ViewPlace.DEVICE and {resampling, crops.resampling} != {BicubicKernel.PILLOW}:
            raise ConfigurationError(
                f"DISTILL.VIEWS device makes Pillow's pixels; DISTILL.RESAMPLING must stay "
                f"'{BicubicKernel.PILLOW.value}' with it, got '{resampling.value}'."
            )
        self.regions = regions
        self.crops = crops
        self.student_size = student_size
        self.foundation_size = foundation_size
        self.resampling = resampling
        self.views = views

    def order(self, round_: int) -> list[int]:
        """Indices of all images, shuffled for one round."""
        order = list(range(len(self.records)))
        random.Random(f"order/{self.seed}/{round_}").shuffle(order)
        return order

    def __getitem__(self, position: int) -> DistillationSample | RawSample:
        _, index = self.locate(position)
        return self.sample(index, random.Random(f"regions/{self.seed}/{position}"))

    def sample(self, index: int, rng: random.Random) -> DistillationSample | RawSample:
        """The image of that index, or the next one that can be read, with regions drawn from a generator."""
        (record, pixels), unreadable = self.first_readable(index, self._read)
        boxes = self.regions.sample(replace(record, size=pixels.shape[:2]), rng)
        extent = content_extent(pixels)
        common = {"boxes": to_padded_square(boxes, extent), "extent": extent}
        common |= {"unreadable": unreadable, "path": record.path}
        if self.views is ViewPlace.DEVICE:
            windows = self.crops.windows(pixels.shape[:2], boxes)
            return RawSample(torch.from_numpy(pixels), windows, self._sizes, **common)
        student = padded_square(pixels, self.student_size, self.resampling)
        foundation = None
        if self.foundation_size is not None:
            same = self.foundation_size == self.student_size
            foundation = student if same else padded_square(pixels, self.foundation_size, self.resampling)
        return DistillationSample(student, foundation, self.crops(pixels, boxes), **common)

    def _read(self, index: int) -> tuple[ImageRecord, np.ndarray]:
        record = self.records[index]
        return record, read_rgb(record.path)

    @property
    def _sizes(self) -> ViewSizes:
        return ViewSizes(self.student_size, self.foundation_size, self.crops.size, self.crops.resize)


def build_loader(
    dataset: DistillationDataset,
    *,
    batch_size: int,
    start: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """An endless loader of `DistillationBatch` or `RawBatch`, from the stream's position `start`."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=PositionSampler(first=start),
        num_workers=num_workers,
        collate_fn=RawBatch.collate if dataset.views is ViewPlace.DEVICE else DistillationBatch.collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=_one_thread,
        # A private generator: the loader's own draw for its workers' seeds must not move the global state.
        generator=torch.Generator(),
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    shield_worker(worker)
