"""The training loop: Detectron2's SimpleTrainer with accumulation, a stateless schedule and an exact resume.

Everything that decides a step follows from the weights, their moving average, the optimiser, the gradient
scale, the generators' state and the number of images drawn; all are in the resume state.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ..construction import DenseEncoder
from ..structures import CheckpointError
from ..training import any_process
from .batch import DistillationBatch
from .data import UnreadableMonitor
from .distiller import Distiller
from .failure import save_failed_step
from .optim import ExportedWeights
from .state import rng_state, set_rng_state, weights_digest, write_state

logger = logging.getLogger(__name__)


class DistillationTrainer(SimpleTrainer):
    """One optimiser step from one or more batches.

    Args:
        model: a Distiller, or DistributedDataParallel around one.
        batches: an endless iterable of batches on the CPU.
        optimizer: over the student's parameters.
        schedule: step -> learning rate.
        device: where the model is.
        accumulate: batches a step.
        clip_norm: the gradient's largest norm; None = no clipping.
        monitor: is told of unreadable images, once a step.
        seed: of the data, kept in the resume state.
        images_drawn: images used so far, over all processes.
        images_per_step: over all processes and accumulated batches.
        scaler: of the gradients, for fp16; None = no scaling.
        average: of the student's weights, updated after each step; None = no average.
        exported: what `product_encoder` is where there is an average.
        failures: folder for the batches of a step that is not finite.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        batches: Iterable[DistillationBatch],
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float],
        device: torch.device,
        accumulate: int = 1,
        clip_norm: float | None = None,
        monitor: UnreadableMonitor,
        seed: int = 0,
        images_drawn: int = 0,
        images_per_step: int,
        scaler: torch.amp.GradScaler | None = None,
        average: AveragedModel | None = None,
        exported: ExportedWeights = ExportedWeights.AVERAGE,
        failures: str | Path = ".",
    ):
        super().__init__(model, batches, optimizer)
        self.schedule = schedule
        self.device = device
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.monitor = monitor
        self.seed = seed
        self.images_drawn = images_drawn
        self.images_per_step = images_per_step
        self.scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
        self.skipped_steps = 0
        self.average = average
        self.exported = exported
        self.failures = failures
        self._teacher_digest = weights_digest(self.distiller.teacher)

    @property
    def distiller(self) -> Distiller:
        """The module inside the wrapper for several processes."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    @property
    def product_encoder(self) -> DenseEncoder:
        """The encoder to evaluate and to export: the student, or the moving average of its weights."""
        if self.average is not None and self.exported is ExportedWeights.AVERAGE:
            return self.average.module
        return self.distiller.student

    def run_step(self) -> None:
        """Draws, adds up gradients, clips, steps.

        Raises:
            FloatingPointError: a loss or the gradient is not finite, in any process. The weights are still those
                before the step, and the batches lie in a file that the error names.
            DataError: too many unreadable images.
        """
        start = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self.accumulate)]
        data_time = time.perf_counter() - start
        self.monitor.see(entry for batch in batches for entry in batch.unreadable)

        rate = self.schedule(self.iter)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.storage.put_scalar("lr", rate, smoothing_hint=False)

        self.optimizer.zero_grad()
        normalizer = self._regions_per_batch(batches)
        terms = []
        for position, batch in enumerate(batches):
            with self._gradients_stay_local(position + 1 < len(batches)):
                losses = self.model(batch.to(self.device), normalizer)
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
            # Detectron2 names the terms only where there are several; curves want them always.
            self.storage.put_scalar(*totals, self.storage.latest()["total_loss"][0])
        self._update_weights(batches, found)
        self.images_drawn += self.images_per_step

    def _update_weights(self, batches: Sequence[DistillationBatch], losses: Sequence[dict[str, float]]) -> None:
        """One step of the optimiser and of the average, unless the scaled gradient overflowed."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.scaler.unscale_(self.optimizer)
        # The processes have the same gradient, so they decide alike.
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
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
            self.average.update_parameters(self.distiller.student)
        if self.scaler.is_enabled():
            self.storage.put_scalars(loss_scale=scale, skipped_steps=self.skipped_steps, smoothing_hint=False)

    def _stop(self, what: str, batches: Sequence[DistillationBatch], losses: Sequence[dict[str, float]]) -> NoReturn:
        """All processes leave together; those whose batches can be the reason save them."""
        step, rank = self.iter + 1, comm.get_rank()
        mine = what == "gradient" or not all(math.isfinite(value) for terms in losses for value in terms.values())
        if not mine:
            raise FloatingPointError(
                f"Step {step}: the loss of another process is not finite. It saved its batch in {self.failures}."
            )
        path = save_failed_step(
            self.failures,
            step=step,
            rank=rank,
            world_size=comm.get_world_size(),
            seed=self.seed,
            images_drawn=self.images_drawn,
            batches=batches,
            losses=losses,
        )
        raise FloatingPointError(
            f"Step {step}, process {rank}: the {what} is not finite; the losses are {list(losses)}. The weights are "
            f"those before the step. The batch is saved in {path}. A lower SOLVER.BASE_LR, SOLVER.CLIP_GRADIENTS or "
            f"DISTILL.PRECISION bf16 or fp32 may help; --resume continues from the last state."
        )

    def _regions_per_batch(self, batches: list[DistillationBatch]) -> float:
        """Mean number of regions over accumulated batches and processes: with it as the divisor, their
        gradients add up to that of one large batch, whatever number of regions each drew."""
        count = torch.tensor(float(sum(b.num_regions for b in batches)), device=self.device)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(count)
        return float(count) / (len(batches) * comm.get_world_size())

    def _gradients_stay_local(self, more_to_come: bool):
        if more_to_come and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def save(self, folder: str, keep: int) -> None:
        """Writes the resume state after the step in progress; all processes must call it."""
        generators = comm.gather(rng_state())
        if comm.is_main_process():
            content = {
                "student": self.distiller.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
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
            self.optimizer.load_state_dict(content["optimizer"])
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
