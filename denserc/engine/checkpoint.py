"""Checkpoints of a training: Detectron2's files, written whole or not at all, the same with and without sharding."""

import logging
import re
import zipfile
import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..structures import CheckpointError, write_atomically
from ..structures.atomic import remove_abandoned
from ..structures.files import write_text
from .runtime import at_iteration
from .sharding import whole_weights

logger = logging.getLogger(__name__)

POINTER = "last_checkpoint"
"""File that names the last checkpoint of its folder."""


def is_whole(path: Path) -> bool:
    """True if a file of torch.save is complete: its parts have the check sums that were written with them."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError):
        return False


def last_checkpoint(folder: str | Path, prefix: str) -> Path | None:
    """The checkpoint that a training continues from: the one that the file `last_checkpoint` names.

    Where that file is absent, empty, or names a file that is gone or damaged, it is the newest whole checkpoint, and a
    warning names both.

    Args:
        folder: OUTPUT_DIR of the training.
        prefix: Beginning of the checkpoints' names.

    Returns:
        None if the folder has neither that file nor checkpoints.

    Raises:
        CheckpointError: A checkpoint is named, or there are some, and none is whole.
    """
    folder = Path(folder)
    named = _named(folder)
    if named and is_whole(folder / named):
        return folder / named
    found = [path for path in folder.glob(f"{prefix}_*.pth") if re.fullmatch(rf"{prefix}_(\d+|final)\.pth", path.name)]
    if named is None and not found:
        return None
    whole = [path for path in found if path.name != named and is_whole(path)]
    given = f"{folder / POINTER} is absent" if named is None else f"{folder / POINTER} names {named or 'nothing'}"
    if named:
        given += ", which is damaged" if (folder / named).is_file() else ", which does not exist"
    if not whole:
        names = ", ".join(sorted(path.name for path in found)) or "none"
        raise CheckpointError(
            f"{given}, and the checkpoints of that folder cannot be read ({names}). Copy a whole one there, or start "
            "anew without --resume."
        )
    newest = max(whole, key=lambda path: (_iteration(path), path.stem == f"{prefix}_final"))
    logger.warning("%s. --resume takes the newest whole checkpoint, %s.", given, newest.name)
    return newest


def _named(folder: Path) -> str | None:
    """The name in the file `last_checkpoint`; None without one, "" if it names nothing within the folder."""
    try:
        name = (folder / POINTER).read_text(encoding="utf-8").strip("\0 \n\r\t")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return ""
    return name if name == Path(name).name and name.isprintable() else ""


def _iteration(path: Path) -> int:
    """The number of a checkpoint's last step, from its name, or from its content where the name has none."""
    number = path.stem.rpartition("_")[2]
    if number.isdigit():
        return int(number)
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["iteration"])
    except Exception:  # pickle refuses unknown classes with errors of many types
        return -1


class TrainingCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer whose files are written atomically. All processes save; the main process writes.

    Args:
        model: The trained module, or DistributedDataParallel around it.
        save_dir: Folder of the checkpoints.
        checkpointables: "trainer", and "average" (a TrainedAverage), whose exported weights are then the file's model.
    """

    prefix = "model"
    """Beginning of the names of the checkpoints that --resume takes."""
    _last: str | None = None  # unknown until somebody asks, because the check reads the whole file

    def metadata(self) -> dict:
        """Further entries of a file."""
        return {}

    def save(self, name: str, **kwargs) -> None:
        """Write <save_dir>/<name>.pth; --resume takes the last one."""
        beside = {key: one.state_dict() for key, one in self.checkpointables.items()}
        self.save_model(name, **beside, **kwargs)
        if self.save_dir and self.save_to_disk:
            self.tag_last_checkpoint(f"{name}.pth")
        self._last = str(Path(self.save_dir) / f"{name}.pth")
        comm.synchronize()

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the last checkpoint, whole or not at all."""
        write_text(Path(self.save_dir) / POINTER, last_filename_basename)

    def has_checkpoint(self) -> bool:
        """True if --resume finds a checkpoint in the folder; see `last_checkpoint`."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """Path of the checkpoint that --resume takes, "" for none; see `last_checkpoint`."""
        if self._last is None:
            self._last = str(last_checkpoint(self.save_dir, self.prefix) or "") if self.save_dir else ""
        return self._last

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

    Unlike Detectron2's PeriodicCheckpointer it also removes what a killed process left behind. A training that was
    killed between its last periodic checkpoint and the final one gets the final one when it is resumed.

    Args:
        checkpointer: Writes <prefix>_<iteration>.pth and, after the last step, <prefix>_final.pth.
        period: Steps between two checkpoints; 0 for the last only.
        keep: Number of periodic checkpoints that are kept.
    """

    def __init__(self, checkpointer: TrainingCheckpointer, *, period: int, keep: int):
        self.checkpointer = checkpointer
        self.period = period
        self.keep = keep
        self.final = f"{checkpointer.prefix}_final"

    def before_train(self) -> None:
        """Write the final checkpoint if all steps are done and it is not the last checkpoint."""
        start = self.trainer.start_iter
        if 0 < start == self.trainer.max_iter:
            last = Path(self.checkpointer.get_checkpoint_file()).stem
            if comm.all_gather(last)[0] != self.final:
                with at_iteration(self.trainer, start - 1):
                    self.checkpointer.save(self.final, iteration=start - 1)
            self._remove_old()

    def after_step(self) -> None:
        """Save if a checkpoint is due."""
        iteration = self.trainer.iter
        due = self.period > 0 and (iteration + 1) % self.period == 0
        if due:
            self.save(iteration)
        if iteration + 1 >= self.trainer.max_iter:
            self.checkpointer.save(self.final, iteration=iteration)
            due = True
        if due:
            self._remove_old()

    def _remove_old(self) -> None:
        if comm.is_main_process():
            folder, prefix = Path(self.checkpointer.save_dir), self.checkpointer.prefix
            name = re.compile(rf"{prefix}_\d{{7}}\.pth")
            periodic = sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
            for old in periodic[: -self.keep]:
                old.unlink()
            remove_abandoned(folder, f"{prefix}_")

    def save(self, iteration: int) -> None:
        """Save a periodic state; all processes call it."""
        self.checkpointer.save(f"{self.checkpointer.prefix}_{iteration:07d}", iteration=iteration)
