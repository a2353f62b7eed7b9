"""Storage of predictions until they are scored: on disk, one log per process, or in memory."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from detectron2.utils import comm

from ..scoring.tables import Detections
from .prediction_log import Collector, PredictionLog, Predictions, finished, read_log

LOG_FILE = "predictions_{rank}.jsonl"


class PredictionStore:
    """The predictions of this process, and on the first one in the end those of all.

    Args:
        folder: Folder for the logs, begun by the first prediction; None keeps predictions in memory.
        countable: Detections that the memory need not hold; see Collector.
        distributed: True if there are other processes.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        countable: Callable[[Detections], np.ndarray] | None = None,
        distributed: bool = True,
    ):
        self.folder = folder
        self.distributed = distributed
        self._countable = countable
        self._rank, self._ranks = (comm.get_rank(), comm.get_world_size()) if distributed else (0, 1)
        self._log = None if folder is None else PredictionLog(self._path(self._rank), "")
        self._held = Collector(countable)
        self._resumed = False

    def __len__(self) -> int:
        """Detections in memory."""
        return len(self._held)

    def begin(self, origin: str, *, resume: bool) -> frozenset[int]:
        """Identify the maker of the next predictions, before `reset`; `resume` keeps those that it has made.

        Args:
            origin: Weights, vocabulary and settings in a short text; all processes give the same.
            resume: Continue after the predictions that an interrupted evaluation left in the folder.

        Returns:
            The ids of the images that need not be run again.

        Raises:
            ConfigurationError: The predictions there are of another origin.
        """
        if self._log is None:
            return frozenset()
        self._log.close()
        self._log = PredictionLog(self._log.path, origin)
        self._resumed = resume
        if not resume:
            return frozenset()
        images = self._log.resume()
        for path in self._leftovers():
            images += finished(path, origin)
        if self.distributed:
            images = list(itertools.chain.from_iterable(comm.all_gather(images)))
        return frozenset(images)

    def reset(self) -> None:
        """Forget all but what `begin` has resumed since the last `reset`."""
        self._held = Collector(self._countable)
        if self._log is not None and not self._resumed:
            self._log.close()
        self._resumed = False

    def add(self, image_id: int, found: Detections) -> None:
        """The detections of one image."""
        if self._log is None:
            self._held.add([image_id], found)
        else:
            self._opened().write(image_id, found)

    def gathered(self) -> Predictions | None:
        """The predictions of all processes on the first one, None on others."""
        held = self._held
        if self._log is not None:
            self._opened().close()
            held = Collector(self._countable)
            for path in (*self._leftovers(), self._log.path):
                read_log(path, held)
        parts = [held.predictions()]
        if self.distributed:
            comm.synchronize()
            parts = comm.gather(parts[0], dst=0)
            if not comm.is_main_process():
                return None
        return Predictions.merged(parts)

    def forget(self) -> None:
        """Delete the logs, once all processes have called this: the results file holds everything by then."""
        if self._log is None:
            return
        if self.distributed:
            comm.synchronize()
        for path in self._leftovers():
            path.unlink()
        self._log.remove()

    def _opened(self) -> PredictionLog:
        if not self._log.is_open:
            self._log.begin()
            for path in self._leftovers():
                path.unlink()  # of an evaluation that was interrupted and is not resumed
        return self._log

    def _path(self, rank: int) -> Path:
        return self.folder / LOG_FILE.format(rank=rank)

    def _leftovers(self) -> list[Path]:
        """On the first process, the logs of an interrupted evaluation with more processes."""
        if self._rank != 0:
            return []
        current = {self._path(rank) for rank in range(self._ranks)}
        return sorted(set(self.folder.glob(LOG_FILE.format(rank="*"))) - current)
