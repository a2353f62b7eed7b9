"""One training per output folder; the lock of a dead process is free at once."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from denserc.structures import ConfigurationError, WriteError
from denserc.structures.locks import LOCK_NAME, locked_folder
from tests.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")

HOLDER = """
    import os, sys, time
    from denserc.structures.locks import locked_folder
    with locked_folder(sys.argv[1]):
        if os.fork() == 0:  # as a worker of a data loader, which outlives its parent for some seconds
            time.sleep(20)
            os._exit(0)
        print("locked", flush=True)
        sys.stdin.readline()
    print("free", flush=True)
"""


@pytest.fixture()
def holder(tmp_path):
    """A process that holds tmp_path / "out" until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "out")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_held_folder_is_refused_and_its_process_named(tmp_path, holder):
    with pytest.raises(ConfigurationError, match=f"process {holder.pid} on .*, since 20.*OUTPUT_DIR"):
        with locked_folder(tmp_path / "out"):
            pass
    assert (tmp_path / "out" / LOCK_NAME).is_file()
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "free\n"
    with locked_folder(tmp_path / "out"):
        pass
    assert not list((tmp_path / "out").iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_NAME).is_file()
    with locked_folder(tmp_path / "out"):
        assert str(os.getpid()) in (tmp_path / "out" / LOCK_NAME).read_text()
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"null", b'{"process": 1}'])
def test_a_lock_file_of_any_content_is_taken_over(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    with locked_folder(tmp_path):
        pass


def test_one_process_cannot_hold_a_folder_twice(tmp_path):
    with locked_folder(tmp_path), pytest.raises(ConfigurationError, match=f"process {os.getpid()}, this one"):
        with locked_folder(tmp_path / "." / ".." / tmp_path.name):
            pass
    with locked_folder(tmp_path), locked_folder(tmp_path / "inner"):
        pass


def test_the_lock_ends_with_an_error(tmp_path):
    with pytest.raises(KeyError), locked_folder(tmp_path):
        raise KeyError
    with locked_folder(tmp_path):
        assert (tmp_path / LOCK_NAME).stat().st_mode & 0o077 == 0o077 & 0o666 & ~_umask()


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_of_many_threads_one_at_a_time_holds_it(tmp_path):
    inside, refused, most = [], [], []

    def work():
        try:
            with locked_folder(tmp_path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
        except ConfigurationError:
            refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) + len(refused) == 20


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    import fcntl

    def none(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with locked_folder(tmp_path):
        pass
    assert "cannot be locked" in caplog.text and str(tmp_path) in caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/out"), locked_folder(tmp_path / "file" / "out"):
        pass
