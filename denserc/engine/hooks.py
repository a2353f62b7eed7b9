"""Hooks for Detectron2's trainers: randomness of a step, and a progress bar."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


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
