"""The training step of both stages: Detectron2's SimpleTrainer with accumulation, scaling and a stop before NaN."""

import logging
import math
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..structures import CheckpointError, WriteError
from ..structures.files import write_atomically
from .runtime import any_process
from .sharding import load_optimizer, sharded_root, whole_optimizer, whole_tensor
from .solver import TrainedAverage

logger = logging.getLogger(__name__)


def save_failed_step(
    folder: str | Path,
    *,
    step: int,
    rank: int,
    world_size: int,
    seed: int,
    images_drawn: int,
    batches: Sequence[dict | list],
    sizes: Sequence[int],
    losses: Sequence[dict[str, float]],
) -> Path:
    """Writes nan_batch_step<N>_rank<R>.pt, which torch.load(..., weights_only=True) reads.

    Its entries are the arguments, but for "sizes", and "draws": the number of each image's draw, by which the
    training set finds the same image again.

    Args:
        folder: Folder to write to.
        step: Number of the step in progress, from 1.
        rank, world_size: Rank of this process and number of processes.
        seed: Seed of the data.
        images_drawn: Images used before this step, over all processes.
        batches: This process's batches of the step, on the CPU, as plain containers and tensors.
        sizes: Images of each.
        losses: Their losses, by name.
    """
    first, draws = images_drawn + rank, []
    for size in sizes:
        draws.append([first + world_size * position for position in range(size)])
        first += world_size * size
    content = {
        "step": step,
        "rank": rank,
        "world_size": world_size,
        "seed": seed,
        "images_drawn": images_drawn,
        "batches": list(batches),
        "losses": list(losses),
        "draws": draws,
    }
    return write_atomically(Path(folder) / f"nan_batch_step{step}_rank{rank}.pt", content)


class StepTrainer(SimpleTrainer):
    """One optimizer step from one or more batches.

    A step's gradient is the mean of its batches' over accumulation and processes. A subclass defines what a batch's
    losses are, and what to keep of a batch that went wrong.

    Args:
        model: The module, or DistributedDataParallel around it.
        batches: An endless iterable of batches on the CPU.
        optimizer: Optimizer of the trained parameters.
        device: Device of the model.
        accumulate: Batches a step.
        clip_norm: The gradient's largest norm, of all parameters together; None = no clipping.
        seed: Seed of the data.
        images_drawn: Images used so far, over all processes.
        images_per_step: Number of images per step, over all processes and accumulated batches.
        scaler: Gradient scaler for fp16; None for no scaling.
        data: Description of the training data (`stream.describe_data`), "" for none; a state of other data is refused.
        average: Moving average of the trained weights, updated after each step that was not skipped; None = no average.
        failures: Folder for the batches of a step that is not finite.
        advice: Remedies against such a step, for the message.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        batches: Iterable,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        accumulate: int = 1,
        clip_norm: float | None = None,
        seed: int = 0,
        images_drawn: int = 0,
        images_per_step: int,
        scaler: torch.amp.GradScaler | None = None,
        data: str = "",
        average: TrainedAverage | None = None,
        failures: str | Path = ".",
        advice: str = "",
    ):
        super().__init__(model, batches, optimizer)
        self.device = device
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.seed = seed
        self.images_drawn = images_drawn
        self.images_per_step = images_per_step
        self.scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
        self.average = average
        self.data = data
        self.skipped_steps = 0
        self.failures = failures
        self.advice = advice
        self._sharded = sharded_root(model)

    @property
    def module(self) -> nn.Module:
        """The model inside the wrapper for several processes."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    @property
    def learner(self) -> nn.Module:
        """The module whose parameters the optimizer updates: the model, or a part of it."""
        return self.module

    def prepare(self, batches: Sequence[Any]) -> None:
        """Before the first forward of a step; all processes call it."""

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """The losses of one batch; their sum is minimized."""

    @abstractmethod
    def snapshot(self, batch: Any) -> tuple[dict | list, int]:
        """Saved form of a batch, plain containers and tensors, and its number of images."""

    def run_step(self) -> None:
        """Draw batches, accumulate gradients, clip them and step.

        Raises:
            FloatingPointError: A loss or the gradient is not finite, in any process. The weights are still those
                before the step, and the batches are in a file that the error names.
        """
        start = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self.accumulate)]
        data_time = time.perf_counter() - start
        self.prepare(batches)
        self.optimizer.zero_grad()
        terms = []
        for position, batch in enumerate(batches):
            with self._gradients_stay_local(position + 1 < len(batches)):
                losses = self.losses(batch)
                self.scaler.scale(sum(losses.values()) / self.accumulate).backward()
            terms.append({name: loss.detach() for name, loss in losses.items()})
        self.after_backward()
        # Read only now: on a GPU each reading waits for it.
        found = [{name: float(loss) for name, loss in losses.items()} for losses in terms]
        if any_process(not all(math.isfinite(value) for losses in found for value in losses.values()), self.device):
            self._stop("loss", batches, found)
        totals = {name: torch.tensor(sum(losses[name] for losses in found) / self.accumulate) for name in found[0]}
        self._write_metrics(totals, data_time)
        if len(totals) == 1 and comm.is_main_process():
            # Detectron2 names the terms only where there are several; curves always need them.
            self.storage.put_scalar(*totals, self.storage.latest()["total_loss"][0])
        self._update_weights(batches, found)
        self.images_drawn += self.images_per_step

    def _update_weights(self, batches: Sequence[Any], losses: Sequence[dict[str, float]]) -> None:
        """One step of the optimizer, unless the scaled gradient overflowed."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.scaler.unscale_(self.optimizer)
        # The processes have the same gradient, so they decide equally.
        norm = whole_tensor(nn.utils.get_total_norm([p.grad for p in parameters]))
        scale = self.scaler.get_scale()
        if math.isfinite(norm):
            self.storage.put_scalar("grad_norm", float(norm))
        elif not self.scaler.is_enabled() or scale <= 1:
            self._stop("gradient", batches, losses)
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:
            self.skipped_steps += 1
            logger.info(
                f"Step {self.iter + 1} skipped ({self.skipped_steps} so far): its float16 gradient overflowed at the "
                f"scale {scale:g}."
            )
        elif self.average is not None:
            self.average.update()
        if self.scaler.is_enabled():
            self.storage.put_scalars(loss_scale=scale, skipped_steps=self.skipped_steps, smoothing_hint=False)

    def _stop(self, what: str, batches: Sequence[Any], losses: Sequence[dict[str, float]]) -> NoReturn:
        """Stop all processes together; those whose batches may be the cause save them."""
        step, rank = self.iter + 1, comm.get_rank()
        mine = what == "gradient" or not all(math.isfinite(value) for terms in losses for value in terms.values())
        if not mine:
            raise FloatingPointError(
                f"Step {step}: the loss of another process is not finite. It saved its batch in {self.failures}."
            )
        saved = [self.snapshot(batch) for batch in batches]
        try:
            path = save_failed_step(
                self.failures,
                step=step,
                rank=rank,
                world_size=comm.get_world_size(),
                seed=self.seed,
                images_drawn=self.images_drawn,
                batches=[content for content, _ in saved],
                sizes=[size for _, size in saved],
                losses=losses,
            )
            batch = f"The batch is saved in {path}."
        except WriteError as error:  # a full disk must not hide the loss
            batch = f"The batch is not saved: {error}"
        raise FloatingPointError(
            f"Step {step}, process {rank}: the {what} is not finite; the losses are {list(losses)}. The weights are "
            f"those before the step. {batch} {self.advice} "
            f"--resume continues from the last state."
        )

    def state_dict(self) -> dict:
        """Detectron2's entries, gradient scale and skipped steps; whole on the main process. All processes call it."""
        return {
            **super().state_dict(),
            "optimizer": whole_optimizer(self.learner, self.optimizer),
            "scaler": self.scaler.state_dict(),  # empty without fp16
            "skipped_steps": self.skipped_steps,
            **({"data": self.data} if self.data else {}),
        }

    def load_state_dict(self, state: dict) -> None:
        """Load a state. A change of precision is allowed, as it may avoid overflows.

        Raises:
            ValueError: The state has other groups of parameters.
            CheckpointError: It is of a training on other data.
        """
        self.require_same_data(state)
        TrainerBase.load_state_dict(self, state)  # without SimpleTrainer's own loading of the optimizer
        load_optimizer(self.learner, self.optimizer, state["optimizer"])
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_steps = state.get("skipped_steps", 0)

    def require_same_data(self, state: dict) -> None:
        """Refuse a state of a training on other data; older states do not name their data.

        Raises:
            CheckpointError: The data are others.
        """
        given = state.get("data", "")
        if given and self.data and given != self.data:
            raise CheckpointError(
                f"The state to resume from is of a training on other data: {given}; now they are {self.data}. Resume "
                "with the sets, annotation files and classes of the first start. To train on from its weights with "
                "other data, start without --resume, with its file as MODEL.WEIGHTS and another OUTPUT_DIR."
            )

    def _gradients_stay_local(self, more_to_come: bool):
        if self._sharded is not None:
            self._sharded.set_requires_gradient_sync(not more_to_come)
        if more_to_come and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()
