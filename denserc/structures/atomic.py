"""The one writer of files: whole or not at all, with the permissions of the umask, and an error with the reason.

Every file of DenseRC is written through `atomic_path`, so that no reader finds half of one. A process that is killed
while writing leaves a hidden folder, which the next writer of the same file removes.
"""

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from safetensors import SafetensorError

from .errors import DenseRCError, WriteError

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None

_ABANDONED_AFTER = 24 * 3600
"""Seconds after which an unfinished file counts as abandoned on a file system without locks."""


@contextlib.contextmanager
def atomic_path(path: str | Path, *, durable: bool = True, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` when the block ends and is removed when it fails.

    It has the suffix of `path` and is in a hidden folder beside it, which this process locks. Several threads and
    processes may therefore write the same file: the last one wins. What a killed process left of the same file is
    removed. The file gets the permissions of any new file (0o666 without the umask).

    Args:
        path: Final path; its folder is created if absent.
        durable: Flush file and folder to disk, so that the file is whole after a power failure too.
        size: Number of bytes that will be written, for the error; None if unknown.

    Raises:
        WriteError: The file cannot be written; `path` is what it was before.
    """
    path = _legal(path)
    folder = lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _partial_folder(path)
        partial = folder / f"partial{path.suffix}"
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors writes files that only their owner may read
        if durable:
            _flush(partial)
        os.replace(partial, path)
        if durable:
            with contextlib.suppress(OSError):  # the file is in place; some file systems flush no folders
                _flush(path.parent)
    except Exception as error:
        cause = _refusal(error, folder or path)
        if cause is None:
            raise
        raise _write_error(path, cause, folder, size) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def write_errors(path: str | Path) -> Iterator[None]:
    """Inside, an OSError becomes a WriteError that names `path`: for files that grow line by line.

    Args:
        path: The file or folder that is written to.

    Raises:
        WriteError: The file cannot be written.
    """
    path = _legal(path)
    try:
        yield
    except Exception as error:
        cause = _refusal(error, path)
        if cause is None:
            raise
        raise _write_error(path, cause, None, None) from error


@contextlib.contextmanager
def written_by_others(folder: str | Path) -> Iterator[None]:
    """Inside, another library writes files into a folder; they get the permissions of any new file.

    Args:
        folder: Folder; created if absent.

    Raises:
        WriteError: A file cannot be written.
    """
    folder = Path(folder)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield
        probe = folder / f".{uuid.uuid4().hex}"
        probe.touch()
        mode = probe.stat().st_mode
        probe.unlink()
        for path in folder.iterdir():  # safetensors writes files that only their owner may read
            if path.is_file() and not path.is_symlink():
                path.chmod(mode)


def partial_files(folder: str | Path, prefix: str = "") -> list[Path]:
    """Find unfinished files whose names begin with `prefix`: being written, or left by a process that was killed."""
    return sorted(Path(folder).glob(f".{glob.escape(prefix)}*.partial*"))


def remove_abandoned(folder: str | Path, prefix: str = "") -> list[Path]:
    """Remove what processes that were killed left of files whose names begin with `prefix`; what live ones write stays.

    Returns:
        What was removed.
    """
    removed = []
    for path in partial_files(folder, prefix):
        state, lock = _try_lock(path)
        old = state is _Lock.UNKNOWN and time.time() - path.stat().st_mtime > _ABANDONED_AFTER
        if state is _Lock.OURS or old:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            removed.append(path)
        if lock is not None:
            os.close(lock)
    return removed


class _Lock(Enum):
    """Result of locking an unfinished file."""

    OURS = "ours"
    TAKEN = "taken"  # a live process writes it
    GONE = "gone"
    UNKNOWN = "unknown"  # the file system or the system has no such locks


def _try_lock(path: Path) -> tuple[_Lock, int | None]:
    """Lock a folder or file as long as this process lives. The descriptor must be closed."""
    if fcntl is None:
        return _Lock.UNKNOWN, None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return _Lock.GONE, None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return _Lock.OURS, descriptor
        state = _Lock.GONE  # its writer ended meanwhile, and another one may have begun
    except FileNotFoundError:
        state = _Lock.GONE
    except BlockingIOError:
        state = _Lock.TAKEN
    except OSError:
        state = _Lock.UNKNOWN
    os.close(descriptor)
    return state, None


def _partial_folder(path: Path) -> tuple[Path, int | None]:
    """An empty hidden folder beside `path` for this writer only, and the descriptor of its lock."""
    name = path.name if len(os.fsencode(path.name)) <= 200 else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    number = 0
    while True:
        folder = path.with_name(f".{name}.{number}.partial")
        with contextlib.suppress(FileExistsError):  # Path.mkdir(exist_ok=True) fails if another writer removes it now
            folder.mkdir()
        state, lock = _try_lock(folder)
        if state is _Lock.GONE:
            continue
        if state is _Lock.UNKNOWN:
            folder = path.with_name(f".{name}.{uuid.uuid4().hex}.partial")
            folder.mkdir()
            return folder, None
        if state is _Lock.OURS:
            try:
                for left in folder.iterdir():
                    left.unlink()
                return folder, lock
            except OSError:  # it belongs to another user
                os.close(lock)
        number += 1


def _legal(path: str | Path) -> Path:
    """A path that a file system can have."""
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path)
    except UnicodeEncodeError:  # lone surrogates
        pass
    raise WriteError(f"{str(path)!r} is not a legal name of a file: it has characters that no file system takes.")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(error: BaseException, path: Path) -> OSError | None:
    """The refusal of the system behind an exception of a writer; None for any other exception.

    Args:
        path: Path of the writer: an OSError that names something elsewhere is of another operation.
    """
    if isinstance(error, SafetensorError):  # its text ends with "(os error 28)"
        number = re.search(r"os error (\d+)", str(error))
        return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__  # torch.save hides it behind "unexpected pos"
    elif isinstance(error, RuntimeError) and "inline_container.cc" in str(error):  # torch.save to a path
        return OSError(None, "PyTorch could not write all of it")
    if not isinstance(error, OSError) or isinstance(error, DenseRCError):
        return None
    if isinstance(error.filename, str | bytes | os.PathLike):
        named, own = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
        if named != own and named not in own.parents and own not in named.parents:
            return None
    return error


def _write_error(path: Path, cause: OSError, folder: Path | None, size: int | None) -> WriteError:
    reason = cause.strerror or str(cause)
    given = [f"{path} cannot be written: {reason}."]
    if size:
        given.append(f"It needs about {size:,} bytes.")
    with contextlib.suppress(OSError):
        if folder is not None:
            written = sum(one.stat().st_size for one in folder.iterdir())
            given.append(f"{written:,} bytes were written and removed." if written else "")
    with contextlib.suppress(OSError):
        near = next(one for one in (path.parent, *path.parent.absolute().parents) if one.is_dir())
        given.append(f"{shutil.disk_usage(near).free:,} bytes are free on the disk of {near}.")
    if cause.errno in (errno.ENOSPC, errno.EDQUOT, None):  # None: NumPy's "100 requested and 50 written"
        given.append("Free some space, or choose a folder on another disk.")
    elif cause.errno == errno.EFBIG:
        given.append("Raise the limit of the size of a file (ulimit -f), or choose a folder on another disk.")
    else:
        given.append("Choose a folder that can be written to.")
    error = WriteError(" ".join(filter(None, given)))
    error.errno = cause.errno
    return error
