"""Loaders of a meta-architecture: endless training batches with exact resume, and every test image once."""

from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..engine.config import images_per_forward
from ..engine.stream import PositionSampler, TrainingStream
from ..structures import ConfigurationError

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
    records = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = [
            r for r in records if "annotations" not in r or any(not a.get("iscrowd", 0) for a in r["annotations"])
        ]
    return records


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
        # Starting an iterator draws from this generator; drawing from PyTorch's own would shift the first step's
        # randomness, and a resumed run has another first step.
        generator=torch.Generator(),
    )


def build_test_loader(cfg: CfgNode, mapper: Mapper, name: str, finished: frozenset[int] = frozenset()) -> DataLoader:
    """Every image of a registered set once, shared among the processes, except those whose ids are `finished`."""
    records = [record for record in DatasetCatalog.get(name) if record["image_id"] not in finished]
    return DataLoader(
        _Mapped(records, mapper),
        batch_size=cfg.TEST.IMS_PER_PROCESS,
        sampler=InferenceSampler(len(records)) if records else (),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
    )


class _Mapped(Dataset):
    def __init__(self, records: list[dict], mapper: Mapper):
        self.records = records
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        return self.mapper(self.records[index])
