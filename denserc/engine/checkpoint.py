"""Checkpoints of a training: Detectron2's files, written whole or not at all, the same with and without sharding."""

import logging
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..structures import CheckpointError, write_atomically
from ..structures.files import partial_files, write_text
from .sharding import whole_weights

logger = logging.getLogger(__name__)


class TrainingCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer whose files are written atomically. All processes save; the main process writes.

    Args:
        model: The trained module, or DistributedDataParallel around it.
        save_dir: Folder of the checkpoints.
        checkpointables: "trainer", and "average" (a TrainedAverage), whose exported weights are then the file's model.
    """

    def metadata(self) -> dict:
        """Further entries of a file."""
        return {}

    def save(self, name: str, **kwargs) -> None:
        """Write <save_dir>/<name>.pth; --resume takes the last one."""
        beside = {key: one.state_dict() for key, one in self.checkpointables.items()}
        self.save_model(name, **beside, **kwargs)
        if self.save_dir and self.save_to_disk:
            write_text(Path(self.save_dir) / "last_checkpoint", f"{name}.pth")
        comm.synchronize()

    def save_model(self, name: str, **kwargs) -> None:
        """Write only what is evaluated, without what resuming needs, and not for --resume."""
        with self._exported_weights():
            weights = whole_weights(self.model)
            if self.save_dir and self.save_to_disk:
                path = Path(self.save_dir) / f"{name}.pth"
                logger.info("Writing %s", path)
                write_atomically(path, {"model": weights, **self.metadata(), **kwargs})

    def require_same_average(self, given: bool, path: str | Path) -> None:
        """Refuse to resume from a file that has a moving average where this training has none, or the other way round.

        Raises:
            CheckpointError: They differ; the message names the file.
        """
        if given != ("average" in self.checkpointables):
            raise CheckpointError(
                f"{path} was written {'with' if given else 'without'} a moving average; set SOLVER.EMA.DECAY as at the "
                "first start, or start anew without --resume."
            )

    def _exported_weights(self) -> AbstractContextManager:
        average = self.checkpointables.get("average")
        return nullcontext() if average is None else average.exported_weights()


class CheckpointWriter(HookBase):
    """Hook that saves every `period` steps and after the last, and removes older files. All processes have it.

    Unlike Detectron2's PeriodicCheckpointer it also removes what a killed process left behind.

    Args:
        checkpointer: Writes <prefix>_<iteration>.pth and, after the last step, <prefix>_final.pth.
        period: Steps between two checkpoints; 0 for the last only.
        keep: Number of periodic checkpoints that are kept.
        prefix: Beginning of the files' names.
    """

    def __init__(self, checkpointer: TrainingCheckpointer, *, period: int, keep: int, prefix: str = "model"):
        self.checkpointer = checkpointer
        self.period = period
        self.keep = keep
        self.prefix = prefix

    def after_step(self) -> None:
        """Save if a checkpoint is due."""
        iteration = self.trainer.iter
        due = self.period > 0 and (iteration + 1) % self.period == 0
        if due:
            self.checkpointer.save(f"{self.prefix}_{iteration:07d}", iteration=iteration)
        if iteration + 1 >= self.trainer.max_iter:
            self.checkpointer.save(f"{self.prefix}_final", iteration=iteration)
            due = True
        if due and comm.is_main_process():
            folder = Path(self.checkpointer.save_dir)
            name = re.compile(rf"{self.prefix}_\d{{7}}\.pth")
            periodic = sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
            for old in [*periodic[: -self.keep], *partial_files(folder, f"{self.prefix}_")]:
                old.unlink()
