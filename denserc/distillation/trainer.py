"""The training loop: Detectron2's SimpleTrainer with accumulation, a stateless schedule and an exact resume.

Everything that decides a step follows from the weights, the optimiser, the generators' state and the
number of images drawn; all four are in the resume state.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..structures import CheckpointError
from .batch import DistillationBatch
from .data import UnreadableMonitor
from .distiller import Distiller
from .state import rng_state, set_rng_state, weights_digest, write_state


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
        monitor: is told of unreadable images.
        seed: of the data, kept in the resume state.
        images_drawn: images used so far, over all processes.
        images_per_step: over all processes and accumulated batches.
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
        self._teacher_digest = weights_digest(self.distiller.teacher)

    @property
    def distiller(self) -> Distiller:
        """The module inside the wrapper for several processes."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    def run_step(self) -> None:
        """Draws, adds up gradients, clips, steps.

        Raises:
            FloatingPointError: a loss is not finite; the weights are still those before the step.
            DataError: too many unreadable images.
        """
        start = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self.accumulate)]
        data_time = time.perf_counter() - start
        for batch in batches:
            self.monitor.see(batch.unreadable)

        rate = self.schedule(self.iter)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.storage.put_scalar("lr", rate, smoothing_hint=False)

        self.optimizer.zero_grad()
        totals: dict[str, torch.Tensor] = {}
        normalizer = self._regions_per_batch(batches)
        for position, batch in enumerate(batches):
            with self._gradients_stay_local(position + 1 < len(batches)):
                losses = self.model(batch.to(self.device), normalizer)
                (sum(losses.values()) / self.accumulate).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach() / self.accumulate
        self.after_backward()
        # Raises on a loss that is not finite, before the weights take harm.
        self._write_metrics(totals, data_time)
        if len(totals) == 1 and comm.is_main_process():
            # Detectron2 names the terms only where there are several; curves want them always.
            self.storage.put_scalar(*totals, self.storage.latest()["total_loss"][0])
        if self.clip_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm)
            self.storage.put_scalar("grad_norm", float(norm))
        self.optimizer.step()
        self.images_drawn += self.images_per_step

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
        try:
            self.distiller.student.load_state_dict(content["student"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"The resume state belongs to another student: {error}") from error
        generators = content["generators"]
        set_rng_state(generators[min(comm.get_rank(), len(generators) - 1)])
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
