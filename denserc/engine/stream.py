"""An endless stream of training samples that is addressed by position, so that a resumed run continues it exactly."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from ..structures import DataError


class TrainingStream(Dataset):
    """An endless stream of mapped records: item p is the p-th sample of the training.

    Every round over the records has its own permutation, and every item its own seed. An item therefore depends only
    on (seed, p): not on the number of workers, nor on where a run was interrupted.

    With fixed views a record's item is one of `views` that depend only on (seed, record, number of the view); they
    alternate from round to round.

    Args:
        records: Records of the training sets.
        mapper: Maps a record to an item. It draws from NumPy's global generator.
        seed: Seed of order and augmentation.
        views: Number of fixed views of a record; 0 draws every item anew.

    Raises:
        DataError: `records` is empty.
    """

    def __init__(self, records: Sequence[Any], mapper: Callable[[Any], Any], *, seed: int, views: int = 0):
        if not records:
            raise DataError("The training sets contain no image with an annotation to learn from.")
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.views = views

    def __getitem__(self, position: int) -> Any:
        round_, offset = divmod(position, len(self.records))
        order = np.random.default_rng([self.seed, round_]).permutation(len(self.records))
        draw = [self.seed, 3, order[offset], round_ % self.views] if self.views else [self.seed, 1, position]
        before = np.random.get_state()
        np.random.seed(np.random.default_rng(draw).integers(2**32))
        try:
            return self.mapper(self.records[order[offset]])
        finally:
            np.random.set_state(before)


class PositionSampler(Sampler[int]):
    """Endless positions of a stream for this process: first + rank, first + rank + processes, ...

    Args:
        first: Position of the first sample over all processes; those before it were trained on already.
    """

    def __init__(self, *, first: int):
        self.first = first

    def __iter__(self) -> Iterator[int]:
        position = self.first + comm.get_rank()
        while True:
            yield position
            position += comm.get_world_size()
