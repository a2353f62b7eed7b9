"""The training loop: a stateless schedule and an exact resume around the shared step.

Everything that decides a step follows from the weights, their moving average, the optimiser, the gradient
scale, the generators' state and the number of images drawn; all are in the resume state.
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.optim.swa_utils import AveragedModel

from ..construction import DenseEncoder
from ..engine import StepTrainer, load_whole_state, whole_state
from ..structures import CheckpointError, weights_digest, write_atomically
from .data.batch import DistillationBatch
from .data.dataset import UnreadableMonitor
from .data.views import RawBatch
from .distiller import Distiller
from .optim import ExportedWeights

logger = logging.getLogger(__name__)


_NAME = re.compile(r"state_(\d{8})\.pt")
_VERSION = 2


def rng_state() -> dict:
    """The state of this process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict) -> None:
    """Undoes whatever was drawn since `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def write_state(folder: str | Path, step: int, content: dict, keep: int = 1) -> Path:
    """Writes `state_<step>.pt` whole or not at all, then removes all but the newest `keep` and what a process
    that was killed in the middle of writing left behind."""
    folder = Path(folder)
    path = write_atomically(folder / f"state_{step:08d}.pt", {"version": _VERSION, "step": step, **content})
    for old in [*_states(folder)[: -max(1, keep)], *folder.glob("state_*.partial")]:
        old.unlink()
    return path


def latest_state(folder: str | Path) -> Path | None:
    """The newest resume state of a folder."""
    states = _states(Path(folder))
    return states[-1] if states else None


def read_state(path: str | Path) -> dict:
    """The content of a resume state, on the CPU.

    Raises:
        CheckpointError: not such a file, or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a resume state: {error}") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise CheckpointError(f"{path} is not a resume state of version {_VERSION}. Start anew without --resume.")
    return content


def _states(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


class DistillationTrainer(StepTrainer):
    """Distils; see StepTrainer for what is not named here.

    Args:
        schedule: step -> learning rate.
        monitor: is told of unreadable images, once a step.
        average: of the student's weights, updated after each step; None = no average.
        exported: what `product_encoder` is where there is an average.
    """

    def __init__(
        self,
        *,
        schedule: Callable[[int], float],
        monitor: UnreadableMonitor,
        average: AveragedModel | None = None,
        exported: ExportedWeights = ExportedWeights.AVERAGE,
        **options,
    ):
        advice = "A lower SOLVER.BASE_LR, SOLVER.CLIP_GRADIENTS or DISTILL.PRECISION bf16 or fp32 may help;"
        super().__init__(advice=advice, **options)
        self.schedule = schedule
        self.monitor = monitor
        self.average = average
        self.exported = exported
        self._normalizer = 1.0
        self._teacher_digest = weights_digest(self.distiller.teacher)

    @property
    def distiller(self) -> Distiller:
        """The module inside the wrapper for several processes."""
        return self.module

    @property
    def product_encoder(self) -> DenseEncoder:
        """The encoder to evaluate and to export: the student, or the moving average of its weights."""
        if self.average is not None and self.exported is ExportedWeights.AVERAGE:
            return self.average.module
        return self.distiller.student

    def prepare(self, batches: Sequence[DistillationBatch | RawBatch]) -> None:
        """Takes note of unreadable images, sets the rate and the divisor of the losses.

        Raises:
            DataError: too many unreadable images.
        """
        self.monitor.see(entry for batch in batches for entry in batch.unreadable)
        rate = self.schedule(self.iter)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.storage.put_scalar("lr", rate, smoothing_hint=False)
        self._normalizer = self._regions_per_batch(batches)

    def losses(self, batch: DistillationBatch | RawBatch) -> dict[str, torch.Tensor]:
        """Of one batch, divided by the regions of the whole step."""
        return self.model(batch.views_on(self.device), self._normalizer)

    def updated(self) -> None:
        """The average follows."""
        if self.average is not None:
            self.average.update_parameters(self.distiller.student)

    def keepsake(self, batch: DistillationBatch | RawBatch) -> tuple[dict, int]:
        """`DistillationBatch(**content)` is the batch again: images and crops as uint8, files by name."""
        made = batch.views_on(torch.device("cpu"))
        return dict(vars(made)), len(made.images)

    def _regions_per_batch(self, batches: Sequence[DistillationBatch | RawBatch]) -> float:
        """Mean number of regions over accumulated batches and processes: with it as the divisor, their
        gradients add up to that of one large batch, whatever number of regions each drew."""
        count = torch.tensor(float(sum(b.num_regions for b in batches)), device=self.device)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(count)
        return float(count) / (len(batches) * comm.get_world_size())

    def save(self, folder: str, keep: int) -> None:
        """Writes the resume state after the step in progress; all processes must call it."""
        generators, optimizer = comm.gather(rng_state()), whole_state(self.optimizer)
        if comm.is_main_process():
            content = {
                "student": self.distiller.student.state_dict(),
                "optimizer": optimizer,
                "scaler": self.scaler.state_dict(),  # empty without scaling
                "skipped_steps": self.skipped_steps,
                "average": None if self.average is None else self.average.state_dict(),
                "generators": generators,
                "seed": self.seed,
                "images_drawn": self.images_drawn,
                "teacher": self._teacher_digest,
                "unreadable": dict(self.monitor.reasons),
            }
            write_state(folder, self.iter + 1, content, keep)
        comm.synchronize()

    def load(self, content: dict) -> int:
        """Takes over a resume state; returns the number of steps already done.

        The data must be built to start at `content["images_drawn"]` with `content["seed"]`.

        Raises:
            CheckpointError: the state belongs to another teacher or construction.
        """
        if content["teacher"] != self._teacher_digest:
            raise CheckpointError(
                "The resume state was written with another teacher. Use the encoder, weights and SEED of the first "
                "start (random weights come back only with the same SEED), or start anew without --resume."
            )
        if (content["average"] is None) != (self.average is None):
            raise CheckpointError(
                "The resume state was written "
                + ("with" if self.average is None else "without")
                + " a moving average; set DISTILL.EMA.DECAY as at the first start, or start anew without --resume."
            )
        try:
            self.distiller.student.load_state_dict(content["student"])
            load_whole_state(self.optimizer, content["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"The resume state belongs to another student: {error}") from error
        generators = content["generators"]
        set_rng_state(generators[min(comm.get_rank(), len(generators) - 1)])
        # A change of DISTILL.PRECISION is allowed: it may be the way out of overflows.
        if content["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        self.skipped_steps = content["skipped_steps"]
        self.images_drawn = content["images_drawn"]
        self.monitor.reasons.update(content["unreadable"])
        return content["step"]


class StateWriter(HookBase):
    """Writes the resume state every `period` steps and after the last.

    Args:
        folder: where to.
        period: steps between two states.
        keep: how many states stay.
    """

    def __init__(self, *, folder: str, period: int, keep: int = 1):
        self.folder = folder
        self.period = period
        self.keep = keep

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self.period > 0 and done % self.period == 0):
            self.trainer.save(self.folder, self.keep)
