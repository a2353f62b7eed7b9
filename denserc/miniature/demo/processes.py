"""Stages of the demo side by side, each in a process of one thread.

The models of the demo are so small that a second thread gains little, while two stages in two processes take half the
time. With one thread each, results do not depend on the number of processes.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from ...structures import DenseRCError

Messages = Any  # multiprocessing.SimpleQueue of (line of the terminal, label, text)


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Args:
        key: Identifies the stage.
        title: Headline on the terminal; what is before its first ":" labels the progress bars.
        run: Function without arguments that can be pickled, as its result.
        after: Keys of the stages that must be finished before.
    """

    key: Hashable
    title: str
    run: Callable[[], Any]
    after: tuple[Hashable, ...] = ()


def run_stages(stages: Sequence[Stage], processes: int) -> dict[Hashable, Any]:
    """Run all stages; a free process takes the first stage in the list whose requirements are done.

    An error or an interruption stops all processes.

    Args:
        stages: Stages in order of preference.
        processes: Largest number of stages that run at the same time.

    Returns:
        The stages' results by key.

    Raises:
        Exception: Any error of a stage, as it was raised there.
        ValueError: Stages wait for each other, or for a stage that is not in the list.
        DenseRCError: A process was killed.
    """
    processes = min(processes, len(stages))
    waiting, running, results = list(stages), {}, {}
    with _terminal(processes) as (messages, say), _pool(processes, messages) as pool:
        while waiting or running:
            ready = [stage for stage in waiting if all(key in results for key in stage.after)]
            for stage in ready[: processes - len(running)]:
                waiting.remove(stage)
                line = min(set(range(processes)) - {line for _, line, _ in running.values()})
                say(f"\n== {stage.title}")
                future = pool.submit(_run, stage.run, line, stage.title.partition(":")[0])
                running[future] = stage, line, time.monotonic()
            if not running:
                raise ValueError(f"These stages wait for stages that never end: {[stage.key for stage in waiting]}.")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage, _, start = running.pop(future)
                try:
                    results[stage.key] = future.result()
                except BrokenProcessPool as error:
                    titles = " or ".join([stage.title, *(other.title for other, _, _ in running.values())])
                    raise DenseRCError(
                        f"A process ended without an error message, perhaps for lack of memory, in: {titles}. "
                        "Run the command again; finished stages are kept."
                    ) from error
                say(f"\n== {stage.title}: finished after {(time.monotonic() - start) / 60:.1f} minutes")
    return results


@contextlib.contextmanager
def _pool(processes: int, messages: Messages) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are terminated when the block fails."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin_process, initargs=(messages,)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        children = set(multiprocessing.active_children()) - before
        for process in children:
            process.terminate()
        for process in children:
            process.join(5)
            if process.is_alive():  # where SIGTERM is ignored
                process.kill()
        raise
    pool.shutdown()


# In a process of the pool.


class _Relay(io.TextIOBase):
    """Terminal of a worker process: sends what is written to the main process, which shows it."""

    encoding = "utf-8"  # tqdm's blocks
    line, label = 0, ""

    def __init__(self, messages: Messages):
        self.messages = messages

    def isatty(self) -> bool:
        return True  # so that there are progress bars

    def write(self, text: str) -> int:
        self.messages.put((self.line, self.label, text))
        return len(text)


def _begin_process(messages: Messages) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdout = sys.stderr = _Relay(messages)


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run(run: Callable[[], Any], line: int, label: str) -> Any:
    sys.stderr.line, sys.stderr.label = line, label
    torch.set_num_threads(1)
    return run()


# In the main process.


@contextlib.contextmanager
def _terminal(lines: int) -> Iterator[tuple[Messages, Callable[[str], None]]]:
    """Show what several processes write: the last line of each at the bottom, finished lines above.

    Yields:
        The queue of their messages, and a function that writes a line above.
    """
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    bars = [tqdm(position=i, bar_format="{desc}", leave=False, dynamic_ncols=True, disable=None) for i in range(lines)]

    def say(text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def show() -> None:
        unfinished = [""] * lines
        while (message := messages.get()) is not None:
            line, label, text = message
            *finished, rest = (unfinished[line] + text).split("\n")
            unfinished[line] = rest.rpartition("\r")[2]
            for one in finished:
                if shown := one.rstrip("\r").rpartition("\r")[2].strip():
                    say(f"{label}: {shown}")
            bars[line].set_description_str(unfinished[line] and f"{label}: {unfinished[line]}")

    shower = threading.Thread(target=show, daemon=True)
    shower.start()
    try:
        yield messages, say
        messages.put(None)  # not after an error: a terminated process may have left the queue locked
        shower.join()
    finally:
        for bar in bars:
            bar.close()
