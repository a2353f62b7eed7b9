"""An endless stream of training samples that is addressed by position, so that a resumed run continues it exactly."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from ..structures import DataError


class PositionStream(Dataset):
    """An endless stream over records: position p is the p-th draw of the training, over all processes.

    Every round over the records has its own order. A subclass makes an item from (seed, position), so that it depends
    neither on the number of workers or processes nor on where a run was interrupted.

    Args:
        records: Records of the training sets.
        seed: Seed of the order and of what an item draws.

    Raises:
        DataError: `records` is empty.
    """

    def __init__(self, records: Sequence[Any], *, seed: int):
        if not records:
            raise DataError("The training sets contain no image to learn from.")
        self.records = records
        self.seed = seed
        self._round = (-1, ())  # number and order of the last round that an item was taken from

    def order(self, round_: int) -> Sequence[int]:
        """Indices of all records in the order of a round."""
        return np.random.default_rng([self.seed, round_]).permutation(len(self.records))

    def locate(self, position: int) -> tuple[int, int]:
        """(round, index of the record) of a position."""
        round_, offset = divmod(position, len(self.records))
        if self._round[0] != round_:
            self._round = (round_, self.order(round_))
        return round_, self._round[1][offset]


class TrainingStream(PositionStream):
    """A stream of mapped records.

    With fixed views a record's item is one of `views` that depend only on (seed, record, number of the view); they
    alternate from round to round.

    Args:
        records: Records of the training sets.
        mapper: Maps a record to an item. It draws from NumPy's global generator.
        seed: Seed of order and augmentation.
        views: Number of fixed views of a record; 0 draws every item anew.
    """

    def __init__(self, records: Sequence[Any], mapper: Callable[[Any], Any], *, seed: int, views: int = 0):
        super().__init__(records, seed=seed)
        self.mapper = mapper
        self.views = views

    def __getitem__(self, position: int) -> Any:
        round_, index = self.locate(position)
        draw = [self.seed, 3, index, round_ % self.views] if self.views else [self.seed, 1, position]
        before = np.random.get_state()
        np.random.seed(np.random.default_rng(draw).integers(2**32))
        try:
            return self.mapper(self.records[index])
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
