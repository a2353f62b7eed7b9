"""The distillation's training step, and the checkpoints that it resumes from.

Everything that decides a step follows from the weights, their moving average, the optimizer, the gradient scale, the
seed, the step and the number of images drawn. All are in the checkpoint.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path

import torch
from detectron2.utils import comm

from ..construction import DenseEncoder
from ..data.images.tolerance import UnreadableMonitor
from ..engine import StepTrainer, TrainingCheckpointer
from ..engine.checkpoint import last_checkpoint
from ..engine.sharding import gathered, place, sharded_root, whole_weights
from ..structures import CheckpointError, weights_digest
from ..structures.tensor_files import read_tensor_file
from .data.batch import DistillationBatch
from .data.views import RawBatch
from .distiller import Distiller

STATE_PREFIX = "state"
_OLD_NAME = re.compile(r"state_\d{8}\.pt")
_OLD_VERSION = 2
_OLD_TRAINER = ("optimizer", "scaler", "skipped_steps", "seed", "images_drawn", "teacher", "unreadable")
_OLD_ENTRIES = {*_OLD_TRAINER, "step", "student", "average"}


def latest_state(folder: str | Path) -> Path | None:
    """The newest checkpoint of a folder; files of version 0.1 are used only if there are no others.

    Raises:
        CheckpointError: There are checkpoints, and none is whole.
    """
    folder = Path(folder)
    found = last_checkpoint(folder, STATE_PREFIX)
    if found is not None:
        return found
    old = sorted(path for path in folder.glob("state_*.pt") if _OLD_NAME.fullmatch(path.name))
    return old[-1] if old else None


def read_state(path: str | Path) -> dict:
    """The content of a checkpoint, on the CPU; a file of version 0.1 in the present form.

    Raises:
        CheckpointError: It cannot be read, or is not a checkpoint of a distillation.
    """
    file = read_tensor_file(path, "checkpoint of a distillation")
    file.require_intact()
    content = file.content
    if isinstance(content, dict) and content.get("version") == _OLD_VERSION and _OLD_ENTRIES <= content.keys():
        return _from_version_0_1(content)
    trainer = content.get("trainer") if isinstance(content, dict) else None
    if not isinstance(trainer, dict) or "teacher" not in trainer or not isinstance(content.get("model"), dict):
        raise CheckpointError(
            f"{path} is not a checkpoint of a distillation: the entries 'model' and 'trainer' were expected. Give the "
            "OUTPUT_DIR of a distillation, or start anew without --resume."
        )
    return content


def _from_version_0_1(old: dict) -> dict:
    """Convert a state of version 0.1: drop the generators' states, and use "/" for "." in the average's names."""
    iteration = old["step"] - 1
    content = {
        "model": old["student"],
        "iteration": iteration,
        "trainer": {"iteration": iteration, **{key: old[key] for key in _OLD_TRAINER}},
    }
    if old["average"] is not None:
        trained = {name.replace(".", "/"): value for name, value in old["student"].items()}
        content["average"] = {
            "average": {_renamed_in_average(name): value for name, value in old["average"].items()},
            "trained": trained,
        }
    return content


def _renamed_in_average(name: str) -> str:
    prefix, dot, rest = name.partition(".")
    return prefix + dot + rest.replace(".", "/")


def _of_names(average: dict, names: set[str]) -> dict:
    """An average's state without weights that training does not change, which files of version 0.1 have too."""
    own = names | {f"module.{name}" for name in names} | {"n_averaged"}
    return {part: {name: v for name, v in values.items() if name in own} for part, values in average.items()}


class DistillationTrainer(StepTrainer):
    """Training of a distillation; see StepTrainer for other arguments.

    Args:
        schedule: Step -> learning rate.
        monitor: Counts unreadable images; told of them once per step.
        unsharded: Copy of the student that can hold its whole weights, where processes share them.
    """

    def __init__(
        self,
        *,
        schedule: Callable[[int], float],
        monitor: UnreadableMonitor,
        unsharded: DenseEncoder | None = None,
        **options,
    ):
        advice = "A lower SOLVER.BASE_LR, SOLVER.CLIP_GRADIENTS or SOLVER.AMP (bf16 or none) may help;"
        super().__init__(advice=advice, **options)
        self.schedule = schedule
        self.monitor = monitor
        self._unsharded = unsharded
        self._normalizer = 1.0
        self._teacher_digest = weights_digest(self.distiller.teacher)

    @property
    def distiller(self) -> Distiller:
        """The module inside the wrapper for several processes."""
        return self.module

    @property
    def learner(self) -> DenseEncoder:
        """The student."""
        return self.distiller.student

    @contextmanager
    def evaluated_encoder(self) -> Iterator[DenseEncoder]:
        """The student with the weights to evaluate, its own or their average; all processes enter and leave.

        Inside, the weights are whole in every process.
        """
        with self._exported_weights(), gathered(self.learner):
            yield self.learner

    def product_encoder(self) -> DenseEncoder | None:
        """A copy of the student with the weights to export, on the main process; all processes call it."""
        with self._exported_weights():
            if sharded_root(self.learner) is None:
                return deepcopy(self.learner) if comm.is_main_process() else None
            weights = whole_weights(self.learner)
        if not comm.is_main_process():
            return None
        self._unsharded.load_state_dict(weights)
        return self._unsharded

    def _exported_weights(self) -> AbstractContextManager:
        return nullcontext() if self.average is None else self.average.exported_weights()

    def prepare(self, batches: Sequence[DistillationBatch | RawBatch]) -> None:
        """Record unreadable images, and set the rate and the divisor of the losses.

        Raises:
            DataError: Too many unreadable images.
        """
        self.monitor.see(entry for batch in batches for entry in batch.unreadable)
        rate = self.schedule(self.iter)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.storage.put_scalar("lr", rate, smoothing_hint=False)
        self._normalizer = self._regions_per_batch(batches)

    def losses(self, batch: DistillationBatch | RawBatch) -> dict[str, torch.Tensor]:
        """Losses of one batch, divided by the regions of the whole step."""
        return self.model(batch.views_on(self.device), self._normalizer)

    def snapshot(self, batch: DistillationBatch | RawBatch) -> tuple[dict, int]:
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

    def state_dict(self) -> dict:
        """State with settings of the draws, the teacher's digest and unreadable images; all processes call it."""
        return {
            **super().state_dict(),
            "seed": self.seed,
            "images_drawn": self.images_drawn,
            "teacher": self._teacher_digest,
            "unreadable": dict(self.monitor.reasons),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take over a state; the data must be built to start at its "images_drawn" with its "seed".

        Raises:
            CheckpointError: The state belongs to other data, another teacher or construction.
        """
        self.require_same_data(state)
        if state["teacher"] != self._teacher_digest:
            raise CheckpointError(
                "The resume state was written with another teacher. Use the encoder, weights and SEED of the first "
                "start (random weights come back only with the same SEED), or start anew without --resume."
            )
        try:
            super().load_state_dict(state)
        except ValueError as error:
            raise CheckpointError(f"The resume state belongs to another student: {error}") from error
        self.images_drawn = state["images_drawn"]
        self.monitor.reasons.update(state["unreadable"])


class StudentCheckpointer(TrainingCheckpointer):
    """Checkpoints of a distillation, which load exactly or not at all.

    Args:
        trainer: Trainer whose student, state and average are saved.
        save_dir: Folder of the checkpoints.
    """

    prefix = STATE_PREFIX

    def __init__(self, trainer: DistillationTrainer, save_dir: str = ""):
        average = {} if trainer.average is None else {"average": trainer.average}
        super().__init__(trainer.learner, save_dir, trainer=trainer, **average)

    def resume(self, content: dict, path: str | Path) -> int:
        """Load the result of `read_state`; returns the number of steps done.

        Raises:
            CheckpointError: It belongs to another teacher, student or construction, or differs in SOLVER.EMA.
        """
        self.require_same_average("average" in content, path)
        trainer, average = self.checkpointables["trainer"], self.checkpointables.get("average")
        trainer.load_state_dict(content["trainer"])  # first, because it checks the teacher
        try:
            self.model.load_state_dict(place(self.model, content["model"]))
        except RuntimeError as error:
            raise CheckpointError(f"The resume state belongs to another student: {error}") from error
        if average is not None:
            average.load_state_dict(_of_names(content["average"], average.names))
        return trainer.iter + 1
