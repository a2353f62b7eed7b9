"""Tolerance of unreadable images, one rule for every training and evaluation: named, counted, skipped up to a share."""

import itertools
import logging
from collections.abc import Iterable

from detectron2.utils import comm

from ...structures import ConfigurationError, DataError

KEY = "DATALOADER.MAX_UNREADABLE"
logger = logging.getLogger(__name__)


class UnreadableMonitor:
    """Counts the images of a data set that cannot be read, over all processes; too many are an error.

    Args:
        total: Number of images in the data set.
        limit: Share of them that may be unreadable, KEY. One image always may, unless the share is 0.
    """

    def __init__(self, *, total: int, limit: float = 0.01):
        if not 0 <= limit <= 1:
            raise ConfigurationError(f"The share of unreadable images must be in 0..1; got {limit}.")
        self.total = total
        self.limit = limit
        self.reasons: dict[str, str] = {}

    @property
    def allowed(self) -> int:
        """Number of images that may be unreadable."""
        return max(int(self.limit * self.total), int(self.limit > 0))

    def see(self, entries: Iterable[tuple[str, str]]) -> None:
        """Record (file, reason) of all processes; each image is reported once.

        All processes must call it equally often; then they also stop together.

        Raises:
            DataError: More images than the limit are unreadable.
        """
        self._record(itertools.chain.from_iterable(comm.all_gather(list(entries))), report=comm.is_main_process())

    def see_own(self, entries: Iterable[tuple[str, str]]) -> None:
        """Record those of this process, where processes have different numbers of batches; `join` comes last.

        Raises:
            DataError: More images than the limit are unreadable in this process.
        """
        self._record(entries, report=True)

    def join(self) -> None:
        """Record what the other processes have seen; all processes call it once.

        Raises:
            DataError: More images than the limit are unreadable.
        """
        own = list(self.reasons.items())
        self._record(itertools.chain.from_iterable(comm.all_gather(own)), report=False)

    def report(self) -> None:
        """Log the whole list, in the first process."""
        if self.reasons and comm.is_main_process():
            listing = "\n  ".join(self.reasons)
            logger.warning(f"{len(self.reasons)} of {self.total} images could not be read:\n  {listing}")

    def _record(self, entries: Iterable[tuple[str, str]], *, report: bool) -> None:
        for path, reason in entries:
            if path not in self.reasons:
                self.reasons[path] = reason
                if report:
                    logger.warning(f"Skipped an unreadable image ({len(self.reasons)} so far): {reason}")
        if len(self.reasons) > self.allowed:
            raise DataError(
                f"{len(self.reasons)} of {self.total} images cannot be read, more than the {self.limit:.1%} that "
                f"{KEY} allows: {list(self.reasons)[:20]}. Repair or remove them; `denserc doctor` finds them all."
            )
