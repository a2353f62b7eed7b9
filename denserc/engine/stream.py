"""An endless stream of training samples that is addressed by position, so that a resumed run continues it exactly."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from ..structures import DataError, UnreadableImageError

UNREADABLE = "unreadable"
"""Field of an item: (file, reason) of each image that was passed over on the way to it."""

Result = TypeVar("Result")


def describe_data(names: Iterable[str], numbers: Iterable[float] = (), classes: Sequence[str] = ()) -> str:
    """Describe training data in a short text, by which a resumed training recognizes them.

    Args:
        names: File names of the images, in order, without the folders of this machine.
        numbers: Labels and boxes of all objects, in order.
        classes: Class names of the labels.

    Returns:
        Number of images, number of classes where there are any, and a digest (16 hex digits).
    """
    names = list(names)
    digest = hashlib.sha256("\n".join([*classes, "", *names]).encode(errors="surrogatepass"))
    digest.update(np.fromiter(numbers, dtype=np.float64).tobytes())
    counts = f"{len(names)} images" + (f", {len(classes)} classes" if classes else "")
    return f"{counts}, digest {digest.hexdigest()[:16]}"


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

    def first_readable(self, index: int, read: Callable[[int], Result]) -> tuple[Result, tuple[tuple[str, str], ...]]:
        """Read the record of that index, or the next one whose image can be read.

        So a batch keeps its size, every other position its item, and a resumed run passes over the same images.

        Args:
            read: Reads the record of an index.

        Returns:
            The result, and (file, reason) of each image that was passed over.

        Raises:
            DataError: No image can be read.
        """
        unreadable = []
        for step in range(len(self.records)):
            try:
                return read((index + step) % len(self.records)), tuple(unreadable)
            except UnreadableImageError as error:
                unreadable.append((error.path, str(error)))
        raise DataError(f"None of the {len(self.records)} images can be read; the first: {unreadable[0][1]}")


class TrainingStream(PositionStream):
    """A stream of mapped records; an image that cannot be read is passed over and named in the item, as UNREADABLE.

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

        def mapped(index: int) -> Any:
            draw = [self.seed, 3, index, round_ % self.views] if self.views else [self.seed, 1, position]
            np.random.seed(np.random.default_rng(draw).integers(2**32))
            return self.mapper(self.records[index])

        before = np.random.get_state()
        try:
            item, unreadable = self.first_readable(index, mapped)
        finally:
            np.random.set_state(before)
        if unreadable:
            item[UNREADABLE] = unreadable
        return item


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
