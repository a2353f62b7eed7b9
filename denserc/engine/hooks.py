"""Hooks for Detectron2's trainers: randomness of a step, evaluation, metrics, and a progress bar."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import HookBase, hooks
from detectron2.engine.defaults import default_writers
from detectron2.utils import comm
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..structures import write_errors
from ..structures.files import drop_cut_line, write_text
from .runtime import at_iteration


@contextmanager
def lines_above_bars(loggers: Sequence[logging.Logger]) -> Iterator[None]:
    """Inside, output of the loggers appears above the bars, at unchanged levels."""
    console = (sys.stdout, sys.stderr)
    levels = [
        [handler.level for handler in logger.handlers if getattr(handler, "stream", None) in console]
        for logger in loggers
    ]
    with logging_redirect_tqdm(loggers):
        for logger, found in zip(loggers, levels, strict=True):
            # tqdm's handler comes last; a logger that wrote nothing to the terminal stays silent there.
            logger.handlers[-1].setLevel(min(found, default=logging.CRITICAL + 1))
        yield


class ProgressBar(HookBase):
    """A bar with the time left and the losses; lines of the log are written above it.

    Args:
        title: Name of the trained model.
        names: Scalars to show; by default every one whose name begins with "loss_".
    """

    def __init__(self, title: str, names: tuple[str, ...] = ()):
        self.title = title
        self.names = names

    def before_train(self) -> None:
        self._above = lines_above_bars([logging.getLogger(name) for name in ("detectron2", "fvcore", "denserc")])
        self._above.__enter__()
        self._bar = tqdm(
            total=self.trainer.max_iter, initial=self.trainer.start_iter, desc=self.title, unit="step", mininterval=0.5
        )

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        names = self.names or [name for name in latest if name.startswith("loss_")]
        self._bar.set_postfix({name: f"{latest[name][0]:.4f}" for name in names if name in latest}, refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        self._bar.close()
        self._above.__exit__(None, None, None)


class SeedEachStep(HookBase):
    """Hook that makes a step's randomness a function of (seed, step, process), so that no state has to be saved.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self):
        """Seed PyTorch's generators."""
        draw = np.random.default_rng([self.seed, 2, self.trainer.iter, comm.get_rank()])
        torch.manual_seed(int(draw.integers(2**62)))


class Evaluation(hooks.EvalHook):
    """Evaluation every `period` steps and after the last; all processes have it.

    Unlike Detectron2's hook it repeats, at the start of a resumed training, an evaluation that was interrupted after
    its step's checkpoint. The file `pending_evaluation` in the output folder names the step until it is evaluated.

    Args:
        period: Steps between two evaluations; 0 for only the one after the last step.
        evaluate: Function that returns {task: {metric: score}}.
        folder: Output folder.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict], folder: str | Path):
        super().__init__(period, evaluate)
        self._pending = Path(folder) / "pending_evaluation"

    def before_train(self) -> None:
        """Repeat the evaluation that was interrupted."""
        start, pending = self.trainer.start_iter, None
        if self._pending.is_file():
            pending = self._pending.read_text(encoding="utf-8").strip()
        if comm.all_gather(pending == str(start))[0] and self._is_due(start):
            with at_iteration(self.trainer, start - 1):
                self._do_eval()

    def before_step(self) -> None:
        """Note the evaluation before the checkpoint of this step can exist."""
        if self._is_due(self.trainer.iter + 1) and comm.is_main_process():
            write_text(self._pending, f"{self.trainer.iter + 1}\n")

    def after_train(self) -> None:
        """Evaluate unless the training failed, even in its last step."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        del self._func  # it holds the trainer

    def _is_due(self, steps: int) -> bool:
        return 0 < steps < self.trainer.max_iter and self._period > 0 and steps % self._period == 0

    def _do_eval(self) -> None:
        super()._do_eval()
        if comm.is_main_process():
            self._pending.unlink(missing_ok=True)


class MetricsWriter(hooks.PeriodicWriter):
    """Detectron2's log, metrics.json and TensorBoard scalars; only the main process has it.

    Args:
        folder: Output folder.
        max_iter: Number of steps of the training.
        period: Steps between two lines.
    """

    def __init__(self, folder: str | Path, max_iter: int, period: int):
        self.folder = Path(folder)
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / "metrics.json").is_file():
                drop_cut_line(self.folder / "metrics.json")  # of a process that was killed
            super().__init__(default_writers(str(folder), max_iter), period)

    def after_step(self) -> None:
        with write_errors(self.folder):
            super().after_step()

    def after_train(self) -> None:
        with write_errors(self.folder):
            super().after_train()
