"""Reading the pictures of a command one by one: those that cannot be read are named and skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # a command's help needs neither NumPy nor torch
    import numpy as np

Item = TypeVar("Item")

UNREADABLE_STATUS = 1
"""Exit status of a command that has skipped pictures and is done with the others."""


def read_each(
    items: Iterable[Item], unreadable: list[str], *, path: Callable[[Item], str | Path], max_pixels: int
) -> Iterator[tuple[Item, np.ndarray]]:
    """Items with the pixels of their pictures, (h, w, 3) uint8 RGB; those that cannot be read are left out.

    Args:
        items: Pictures to read.
        unreadable: List that receives an error message per picture that is left out.
        path: Path of an item's file.
        max_pixels: Most pixels of a picture that is read.

    Raises:
        DataError: None of the pictures can be read; raised at the end.
    """
    from ..data.images.reading import read_rgb
    from ..structures import DataError, UnreadableImageError

    count = 0
    for item in items:
        try:
            pixels = read_rgb(path(item), max_pixels=max_pixels)
        except UnreadableImageError as error:
            unreadable.append(str(error))
            continue
        count += 1
        yield item, pixels
    if not count:
        raise DataError("None of the images can be read:\n" + "\n".join(unreadable))


def report_unreadable(unreadable: list[str]) -> int:
    """Print the messages to the standard error; returns the exit status of the command."""
    import sys

    for message in unreadable:
        print(message, file=sys.stderr)
    return UNREADABLE_STATUS if unreadable else 0
