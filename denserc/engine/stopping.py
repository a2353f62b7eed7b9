"""A training that SIGTERM or Ctrl-C stops: the step in progress ends, its state is written, and --resume continues it.

A second signal ends the process at once.
"""

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..structures import TrainingStopped
from .checkpoint import CheckpointWriter

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WORKER_SECONDS = 20  # for the main process to end its step
_SAME_SECONDS = 3  # a launcher repeats to its processes what the batch system has sent to all
_PROCESS_SECONDS = 300  # for all processes to end theirs: the others of one that died never do


class StopSignals:
    """SIGTERM and SIGINT as a wish that is read between steps. Active between `begin` and `end`.

    A signal that the process ignores, as SIGINT under nohup, stays ignored; outside of the main thread nothing changes.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the first signal; 0 for none."""
        self.can_stop_now = False
        """True while there is no step to end: the signal then raises TrainingStopped, in a single process."""
        self._before: dict[signal.Signals, object] = {}
        self._timer: threading.Timer | None = None
        self._first = 0.0

    def begin(self) -> None:
        """Take over the signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._receive)

    def end(self) -> None:
        """Give the signals back."""
        self.can_stop_now = False
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def agreed(self, device: torch.device) -> int:
        """Number of the signal that some process has received, 0 for none; all processes call it."""
        if comm.get_world_size() == 1:
            return self.received
        numbers = torch.tensor(float(self.received), device=device)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
        return int(numbers)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        several = comm.get_world_size() > 1
        if self.received:
            if several and time.monotonic() < self._first + _SAME_SECONDS:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received, self._first = number, time.monotonic()
        if several:
            self._timer = threading.Timer(_PROCESS_SECONDS, os._exit, [128 + number])
            self._timer.daemon = True
            self._timer.start()
        if comm.is_main_process():
            name = signal.Signals(number).name
            # Not by the log, whose lock this very thread may hold.
            os.write(2, f"\n{name}: the state is written after this step; a second signal ends at once.\n".encode())
        if self.can_stop_now and not several:
            raise TrainingStopped(number)


class StopOnSignal(HookBase):
    """Hook that ends a training after the step in which a signal came, with a state for --resume.

    All processes have it. It follows the CheckpointWriter, so that the last step is saved before.

    Args:
        writer: Hook that saves states; its checkpointer writes the last one.
        device: Device of the model.
    """

    def __init__(self, writer: CheckpointWriter, device: torch.device):
        self.writer = writer
        self.device = device
        self.signals = StopSignals()
        self._agreed = 0

    def before_train(self) -> None:
        self.signals.begin()

    def before_step(self) -> None:
        self.signals.can_stop_now = False

    def after_step(self) -> None:
        """Raise TrainingStopped if a signal has come, unless this was the last step; `after_train` saves."""
        self._agreed = self.signals.agreed(self.device)
        self.signals.can_stop_now = True  # in evaluations, which are other hooks
        if self._agreed and self.trainer.iter + 1 < self.trainer.max_iter:
            raise TrainingStopped(self._agreed)

    def after_train(self) -> None:
        """Give the signals back; where one has come and the last step is whole, save its state.

        Raises:
            TrainingStopped: See StopOnSignal.
        """
        step_is_whole = self.signals.can_stop_now
        self.signals.end()
        number = self._agreed or (self.signals.received if comm.get_world_size() == 1 else 0)
        if not number or not step_is_whole:
            return
        done, total = min(self.trainer.iter + 1, self.trainer.max_iter), self.trainer.max_iter
        if done < total:
            self.writer.save(done - 1)
        raise stopped(number, done, total, self.writer.checkpointer.save_dir)


def stopped(number: int, done: int, total: int, folder: object) -> TrainingStopped:
    """The exception of a training that a signal has ended, after one line of log."""
    logger.warning(
        "Stopped by %s after step %d of %d. The state is in %s; the same command with --resume continues.",
        signal.Signals(number).name,
        done,
        total,
        folder,
    )
    return TrainingStopped(number)


def shield_worker(worker: int) -> None:
    """Let a worker of a data loader outlive a signal to all processes of a training, until the step has ended.

    Give it as `worker_init_fn`. Ctrl-C in a terminal, and a batch system, signal workers too; a worker that ends in the
    middle of a step takes the training with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_end, args=(os.getppid(),), daemon=True).start()


def _wait_for_end(parent: int) -> NoReturn:
    """End this process when its parent asks for it, or some seconds after any other process does."""
    info = signal.sigwaitinfo({signal.SIGTERM})
    while info is not None and info.si_pid != parent:
        info = signal.sigtimedwait({signal.SIGTERM}, _WORKER_SECONDS)
    os._exit(0)
