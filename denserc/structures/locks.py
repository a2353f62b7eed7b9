"""Lock of a training's output folder: one training writes to it at a time."""

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from .atomic import write_errors
from .errors import ConfigurationError

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None

logger = logging.getLogger(__name__)

LOCK_NAME = ".training.lock"
_HELD: set[tuple[int, str]] = set()
"""Process and folder: a forked process has the set but not the locks."""
_GUARD = threading.Lock()


@contextlib.contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder for one process; the lock of a process that died is free at once.

    It is a record lock of POSIX, which network file systems have too and which the workers of a data loader do not
    inherit. Where the file system has none, a warning is logged and nothing is locked. The file LOCK_NAME names its
    process, host and start for the message.

    Args:
        folder: Folder; created if absent.

    Raises:
        ConfigurationError: Another process holds it, or this one already.
        WriteError: The folder cannot be written to.
    """
    folder = Path(folder)
    held = (os.getpid(), str(folder.resolve()))
    with _GUARD:
        if held in _HELD:  # closing a second descriptor would end the first lock
            raise _refused(folder, f"process {os.getpid()}, this one")
        descriptor = _acquire(folder)
        _HELD.add(held)
    try:
        yield
    finally:
        with _GUARD:
            _HELD.discard(held)
            if descriptor is not None:
                _release(folder, descriptor)


def _release(folder: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        (folder / LOCK_NAME).unlink()
    os.close(descriptor)


def _acquire(folder: Path) -> int | None:
    if fcntl is None:
        return None
    path = folder / LOCK_NAME
    while True:
        with write_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            text = os.read(descriptor, 1000)
            os.close(descriptor)
            raise _refused(folder, _holder(text)) from None
        except OSError as error:
            os.close(descriptor)
            logger.warning(
                "%s cannot be locked (%s). Take care that no other training writes to this folder.", folder, error
            )
            return None
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        except FileNotFoundError:  # the training before ended meanwhile and removed it
            pass
        os.close(descriptor)
    about = {"process": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with write_errors(path):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode() + b"\n")
    return descriptor


def _holder(text: bytes) -> str:
    """Description of the process that wrote a lock's file."""
    try:
        about = json.loads(text)
        return f"process {about['process']} on {about['host']}, since {about['since']}"
    except (ValueError, KeyError, TypeError):  # it has just been created
        return "a process that has just started"


def _refused(folder: Path, holder: str) -> ConfigurationError:
    return ConfigurationError(
        f"Another training writes to OUTPUT_DIR {folder}: {holder}. Wait for its end or stop it, or set OUTPUT_DIR to "
        "another folder."
    )
