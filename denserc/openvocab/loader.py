"""Loaders of a meta-architecture: endless training batches with exact resume, and every test image once."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..data.datasets.registration import dataset_records
from ..data.images.tolerance import UnreadableMonitor
from ..engine import shield_worker
from ..engine.config import images_per_forward
from ..engine.stream import PositionSampler, TrainingStream, describe_data
from ..structures import ConfigurationError, UnreadableImageError

Mapper = Callable[[dict], dict]
"""One record of a Detectron2 data set -> one input of the model."""


def training_records(cfg: CfgNode) -> list[dict]:
    """The records of DATASETS.TRAIN.

    With DATALOADER.FILTER_EMPTY_ANNOTATIONS, images whose "annotations" are empty or only crowds are left out.

    Raises:
        ConfigurationError: DATASETS.TRAIN is empty.
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigurationError("DATASETS.TRAIN is empty: there is nothing to train on.")
    records = [record for name in cfg.DATASETS.TRAIN for record in dataset_records(name)]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = [
            r for r in records if "annotations" not in r or any(not a.get("iscrowd", 0) for a in r["annotations"])
        ]
    return records


def describe_records(records: list[dict], classes: Sequence[str]) -> str:
    """The training data in a short text: files, labels, boxes and classes; see `describe_data`."""
    objects = (one for record in records for one in record.get("annotations", ()))
    numbers = (value for one in objects for value in (one["category_id"], *one.get("bbox", ())))
    return describe_data((os.path.basename(record["file_name"]) for record in records), numbers, classes)


def build_train_loader(
    cfg: CfgNode, mapper: Mapper, *, start: int, seed: int, records: list[dict] | None = None
) -> DataLoader:
    """Endless batches, beginning with those of step `start`; SOLVER.ACCUMULATE of them are one step of a process.

    Args:
        mapper: Maps a record to an input of the model.
        start: Number of steps that were trained before.
        seed: Seed of order and augmentation.
        records: Records of the training sets; None reads those of DATASETS.TRAIN.

    Raises:
        ConfigurationError: SOLVER.IMS_PER_BATCH is not divisible by processes times SOLVER.ACCUMULATE.
        DataError: There are no images.
    """
    share = images_per_forward(cfg, comm.get_world_size())
    if records is None:
        records = training_records(cfg)
    return DataLoader(
        TrainingStream(records, mapper, seed=seed, views=cfg.INPUT.FIXED_VIEWS),
        batch_size=share,
        sampler=PositionSampler(first=start * cfg.SOLVER.IMS_PER_BATCH),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=shield_worker,
        # Starting an iterator draws from this generator; drawing from PyTorch's own would shift the first step's
        # randomness, and a resumed run has another first step.
        generator=torch.Generator(),
    )


def build_test_loader(
    cfg: CfgNode,
    mapper: Mapper,
    name: str,
    finished: frozenset[int] = frozenset(),
    missed: Callable[[dict], None] | None = None,
) -> "ReadableBatches":
    """Every image of a registered set once, shared among the processes, except those whose ids are `finished`.

    Args:
        mapper: Maps a record to an input of the model.
        name: Name of the set.
        finished: Ids of images that are left out.
        missed: Called with the record of each image that cannot be read.
    """
    every = dataset_records(name)
    records = [record for record in every if record["image_id"] not in finished]
    loader = DataLoader(
        _Mapped(records, mapper),
        batch_size=cfg.TEST.IMS_PER_PROCESS,
        sampler=InferenceSampler(len(records)) if records else (),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=shield_worker,
    )
    monitor = UnreadableMonitor(total=len(every), limit=cfg.DATALOADER.MAX_UNREADABLE)
    return ReadableBatches(loader, monitor, missed)


class ReadableBatches:
    """Batches of the images that can be read; those that cannot are left out, named and counted.

    Args:
        loader: Batches of a `build_test_loader`; every process exhausts its own once.
        monitor: Counts unreadable images, at the end over all processes.
        missed: Called with the record of each image that cannot be read.
    """

    def __init__(self, loader: DataLoader, monitor: UnreadableMonitor, missed: Callable[[dict], None] | None = None):
        self.loader = loader
        self.monitor = monitor
        self.missed = missed

    def __len__(self) -> int:
        """Number of batches, if all images can be read."""
        return len(self.loader)

    def __iter__(self) -> Iterator[list[dict]]:
        """Batches of inputs of the model.

        Raises:
            DataError: Too many unreadable images.
        """
        for batch in self.loader:
            unreadable = [one for one in batch if isinstance(one, _Unreadable)]
            self.monitor.see_own((one.path, one.reason) for one in unreadable)
            for one in unreadable if self.missed else ():
                self.missed(self.loader.dataset.records[one.index])
            readable = [one for one in batch if not isinstance(one, _Unreadable)]
            if readable:
                yield readable
        self.monitor.join()


@dataclass(frozen=True)
class _Unreadable:
    """Takes the place of an input whose image cannot be read.

    Args:
        index: Index of the record.
        path, reason: File and error message.
    """

    index: int
    path: str
    reason: str


class _Mapped(Dataset):
    def __init__(self, records: list[dict], mapper: Mapper):
        self.records = records
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict | _Unreadable:
        try:
            return self.mapper(self.records[index])
        except UnreadableImageError as error:
            return _Unreadable(index, error.path, str(error))
