"""A few items of a long list, evenly spread over it."""

from collections.abc import Sequence


class Spread(Sequence):
    """Items of a sequence, read when asked for.

    Args:
        items: the whole.
        number: how many; 0, or more than there are: all.
    """

    def __init__(self, items: Sequence, number: int):
        number = min(number, len(items)) if number > 0 else len(items)
        self._items = items
        self._indices = [i * len(items) // number for i in range(number)]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int):
        return self._items[self._indices[index]]
