"""The data set, the order in which it is read, and the watch over unreadable images.

Every draw of an image has a number; its place in the order and its random grid follow from the
seed and that number alone. So the same images and regions come back after a resume in the middle
of an epoch, whatever the number of workers or processes.
"""

import itertools
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ...data.images.reading import read_rgb
from ...data.images.resizing import Resampling
from ...structures import ConfigurationError, DataError
from .batch import DistillationBatch, DistillationSample
from .crops import CropTransform, content_extent, padded_square, to_padded_square
from .regions import ImageRecord, RegionSource
from .views import RawBatch, RawSample, ViewPlace, ViewSizes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draw:
    """One image to be read: its place in the data set and the number of the draw since the start."""

    index: int
    number: int


class DrawSampler(Sampler[Draw]):
    """Endless draws, each epoch in a new order.

    Args:
        size: number of images.
        seed: of the order.
        start: number of the first draw (those before were used ahead of a resume).
        rank: this process takes the draws start + rank, start + rank + world_size, ...
        world_size: number of processes.
    """

    def __init__(self, *, size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1):
        if size < 1:
            raise DataError("Cannot draw from an empty data set.")
        self.size = size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Draw]:
        number = self.start + self.rank
        epoch, order = -1, []
        while True:
            if number // self.size != epoch:
                epoch = number // self.size
                order = list(range(self.size))
                random.Random(f"order/{self.seed}/{epoch}").shuffle(order)
            yield Draw(order[number % self.size], number)
            number += self.world_size


class DistillationDataset(Dataset[DistillationSample | RawSample]):
    """Images with random regions.

    An unreadable image is passed over for the next of the list and named in the sample, so that
    the batch keeps its size and the trainer can count and report it.

    Args:
        records: the images.
        regions: which regions of an image.
        crops: how regions become the teacher's input.
        student_size: side of the student's square.
        foundation_size: side of the foundation model's square, or None for no such view.
        seed: of the regions.
        resampling: whose resizing of the two squares; the crops have their own.
        views: whether samples have views, or (on the device, by Pillow's rule) what to make them of.
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
        resampling: Resampling = Resampling.PILLOW,
        views: ViewPlace = ViewPlace.LOADER,
    ):
        if not records:
            raise DataError("A distillation data set needs at least one image.")
        if views is ViewPlace.DEVICE and {resampling, crops.resampling} != {Resampling.PILLOW}:
            raise ConfigurationError(
                f"DISTILL.VIEWS device makes Pillow's pixels; DISTILL.RESAMPLING must stay "
                f"'{Resampling.PILLOW.value}' with it, got '{resampling.value}'."
            )
        self.records = list(records)
        self.regions = regions
        self.crops = crops
        self.student_size = student_size
        self.foundation_size = foundation_size
        self.seed = seed
        self.resampling = resampling
        self.views = views

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> DistillationSample | RawSample:
        rng = random.Random(f"regions/{self.seed}/{draw.number}")
        unreadable = []
        for step in range(len(self)):
            record = self.records[(draw.index + step) % len(self)]
            try:
                pixels = read_rgb(record.path)
            except DataError as error:
                unreadable.append((record.path, str(error)))
                continue
            boxes = self.regions.sample(replace(record, size=pixels.shape[:2]), rng)
            extent = content_extent(pixels)
            common = {"boxes": to_padded_square(boxes, extent), "extent": extent}
            common |= {"unreadable": tuple(unreadable), "path": record.path}
            if self.views is ViewPlace.DEVICE:
                windows = self.crops.windows(pixels.shape[:2], boxes)
                return RawSample(torch.from_numpy(pixels), windows, self._sizes, **common)
            student = padded_square(pixels, self.student_size, self.resampling)
            foundation = None
            if self.foundation_size is not None:
                same = self.foundation_size == self.student_size
                foundation = student if same else padded_square(pixels, self.foundation_size, self.resampling)
            return DistillationSample(student, foundation, self.crops(pixels, boxes), **common)
        raise DataError(f"None of the {len(self)} images can be read; the first: {unreadable[0][1]}")

    @property
    def _sizes(self) -> ViewSizes:
        return ViewSizes(self.student_size, self.foundation_size, self.crops.size, self.crops.resize)


class UnreadableMonitor:
    """Counts the images that cannot be read, over all processes; too many are an error.

    Args:
        total: number of images in the data set.
        limit: the share of them that may be unreadable.
    """

    def __init__(self, *, total: int, limit: float = 0.01):
        if not 0 <= limit <= 1:
            raise ConfigurationError(f"The share of unreadable images must be in 0..1; got {limit}.")
        self.total = total
        self.limit = limit
        self.reasons: dict[str, str] = {}

    def see(self, entries: Iterable[tuple[str, str]]) -> None:
        """Takes note of (path, reason) of all processes; each image is reported once.

        All processes must call it equally often; then they also stop together.

        Raises:
            DataError: more images than the limit are unreadable.
        """
        for path, reason in itertools.chain.from_iterable(comm.all_gather(list(entries))):
            if path not in self.reasons:
                self.reasons[path] = reason
                if comm.is_main_process():
                    logger.warning(f"Skipped an unreadable image ({len(self.reasons)} so far): {reason}")
        if len(self.reasons) > self.limit * self.total:
            raise DataError(
                f"{len(self.reasons)} of {self.total} images cannot be read, more than the {self.limit:.1%} that "
                f"DISTILL.MAX_UNREADABLE allows: {list(self.reasons)[:20]}. Repair or remove them."
            )

    def report(self) -> None:
        """Logs the whole list, in the first process."""
        if self.reasons and comm.is_main_process():
            listing = "\n  ".join(self.reasons)
            logger.warning(f"{len(self.reasons)} of {self.total} images could not be read:\n  {listing}")


def build_loader(
    dataset: DistillationDataset,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """An endless loader of `DistillationBatch` or `RawBatch`; the other arguments are those of `DrawSampler`."""
    sampler = DrawSampler(size=len(dataset), seed=seed, start=start, rank=rank, world_size=world_size)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
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
