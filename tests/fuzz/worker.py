"""A process that runs damaged inputs, so that a death of C code or an endless loop is an outcome like others."""

import multiprocessing
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

SECONDS = 20.0
STARTING = 120.0
MEMORY = 1 << 20  # KiB that one input may add to the peak


@dataclass(frozen=True)
class Outcome:
    """Result of an input.

    Args:
        kind: "fine" (success), "refused" (an error of ours), or a kind of failure.
        detail: Message or traceback.
    """

    kind: str
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        """True for neither success nor an error of ours."""
        return self.kind not in ("fine", "refused")


class Worker:
    """Runs a target on damaged inputs in a process of its own, which is started anew when it dies or hangs.

    Args:
        name: Name of the target.
        folder: Folder with valid files.
    """

    def __init__(self, name: str, folder: Path):
        self._arguments = name, folder
        self._process = self._pipe = None

    def __call__(self, given: object) -> Outcome:
        """The outcome of one input."""
        if self._process is None:
            self._start()
        self._pipe.send(given)
        if not self._pipe.poll(SECONDS):
            self.stop()
            return Outcome("hang", f"no result within {SECONDS:.0f} s")
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            code, self._process = self._process.exitcode, None
            return Outcome(f"dead process, exit code {code}")

    def stop(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"{__package__}.preload"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(*self._arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(STARTING):
            raise TimeoutError(f"The worker of {self._arguments[0]} did not start within {STARTING:.0f} s.")
        self._pipe.recv()


def _serve(name: str, folder: Path, pipe: Connection) -> None:
    from . import preload  # noqa: F401, if the server did not
    from .targets import TARGETS

    warnings.simplefilter("ignore")
    run = partial(TARGETS[name].run, folder)
    pipe.send("ready")
    while True:
        try:
            given = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome_of(run, given))


def outcome_of(run: Callable[[object], None], given: object) -> Outcome:
    """Run one input in this process."""
    from denserc.structures.errors import DenseRCError

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        run(given)
        outcome = Outcome("fine")
    except DenseRCError as error:
        outcome = Outcome("refused", str(error))
        if not str(error).strip():
            outcome = Outcome("an error without a message", type(error).__name__)
    except BaseException as error:  # noqa: BLE001, everything else is what is looked for
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "denserc" in f.filename]
        place = f"{frames[-1].filename.split('denserc/')[-1]}:{frames[-1].name}" if frames else "?"
        outcome = Outcome(f"{type(error).__name__} from {place}", "".join(traceback.format_exception(error))[-3000:])
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if sys.platform == "linux" and added > MEMORY:
        return Outcome("memory", f"{added / 1024:.0f} MiB more; {outcome.kind}: {outcome.detail[:200]}")
    return outcome
