"""Whole or unchanged files, permissions of the umask, leftovers of dead processes, and errors with the free space."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from denserc.structures import DataError, DenseRCError, WriteError, atomic_path, write_atomically, write_errors
from denserc.structures.atomic import partial_files, remove_abandoned, written_by_others
from denserc.structures.files import write_json, write_text
from tests.paths import ROOT

posix = pytest.mark.skipif(os.name != "posix", reason="locks and limits of POSIX")


def test_failure_inside_the_block_removes_the_partial_file(tmp_path):
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        assert partial.parent.parent == tmp_path and partial.suffix == ".txt"
        assert partial_files(tmp_path) == partial_files(tmp_path, "a") == [partial.parent]
        assert not partial_files(tmp_path, "b")
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "a")
        with atomic_path(tmp_path / "b.safetensors") as partial:
            save_file({"a": torch.ones(1)}, partial)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_of_other_libraries_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with written_by_others(tmp_path / "model"):
            save_file({"a": torch.ones(1)}, tmp_path / "model" / "model.safetensors")
            (tmp_path / "model" / "config.json").write_text("{}")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == {"model.safetensors": 0o640, "config.json": 0o640}


def test_threads_writing_one_file_do_not_disturb_each_other(tmp_path):
    texts = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "a.txt", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def process(code: str, *arguments) -> subprocess.Popen:
    """A process that runs the code and has the arguments in sys.argv."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


WRITER = """
    import sys, time
    from denserc.structures import atomic_path
    with atomic_path(sys.argv[1]) as partial:
        partial.write_text("half")
        (partial.parent / ".tmpA1b2C3").write_text("as safetensors leaves")
        print("writing", flush=True)
        time.sleep(60)
"""


@pytest.fixture()
def writer(tmp_path):
    """A process in the middle of writing a.json."""
    running = process(WRITER, tmp_path / "a.json")
    assert running.stdout.readline() == "writing\n"
    yield running
    running.kill()
    running.wait()
    running.stdout.close()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@posix
def test_leftovers_of_a_killed_process_are_removed(tmp_path, writer):
    write_text(tmp_path / "b.json", "b")
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert len(partial_files(tmp_path, "a")) == 1
    write_json(tmp_path / "a.json", 1)
    assert names(tmp_path) == ["a.json", "b.json"]


@posix
def test_what_a_live_process_writes_is_not_removed(tmp_path, writer):
    write_text(tmp_path / "a.json", "whole")
    (unfinished,) = partial_files(tmp_path)
    assert remove_abandoned(tmp_path) == [] and partial_files(tmp_path) == [unfinished]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert remove_abandoned(tmp_path, "b") == [] and remove_abandoned(tmp_path, "a") == [unfinished]
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "whole"


@posix
def test_files_that_older_versions_left_are_removed(tmp_path):
    (tmp_path / ".model_0000001.0123abcd.partial.pth").write_text("half")
    (tmp_path / ".other.0123abcd.partial.pth").write_text("half")
    assert len(remove_abandoned(tmp_path, "model_")) == 1
    assert names(tmp_path) == [".other.0123abcd.partial.pth"]


def test_without_locks_only_old_leftovers_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("denserc.structures.atomic.fcntl", None)
    new, old = tmp_path / ".a.0.partial", tmp_path / ".a.1.partial"
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert remove_abandoned(tmp_path) == [old] and names(tmp_path) == [new.name]
    write_text(tmp_path / "a", "text")
    assert names(tmp_path) == [new.name, "a"]


TWO_WRITERS = """
    import sys, torch
    from safetensors.torch import save_file
    from denserc.structures import atomic_path
    for turn in range(60):
        with atomic_path(sys.argv[1], durable=False) as partial:
            save_file({"a": torch.full((50_000,), float(sys.argv[2]))}, partial)
"""


@posix
def test_two_processes_never_tear_one_file(tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "cache.safetensors"
    running, seen = [process(TWO_WRITERS, path, value) for value in (1, 2)], set()
    while any(one.poll() is None for one in running):
        if path.exists():
            values = load_file(path)["a"].unique().tolist()
            assert len(values) == 1
            seen.update(values)
    assert [one.wait() for one in running] == [0, 0] and seen <= {1.0, 2.0} and seen
    for one in running:
        one.stdout.close()
    assert names(tmp_path) == ["cache.safetensors"]


def write_tensors(path):
    with atomic_path(path) as partial:
        save_file({"a": torch.zeros(100_000)}, partial)


def write_array(path):
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, np.zeros(100_000))


def write_picture(path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    with atomic_path(path) as partial:
        Image.fromarray(noise).save(partial)


def write_by_path(path):
    with atomic_path(path) as partial:
        torch.save({"a": torch.zeros(100_000)}, partial)


LARGE = {
    "model.pth": lambda path: write_atomically(path, {"a": {"b": [torch.zeros(100_000)]}}),
    "other.pth": write_by_path,
    "encoder.safetensors": write_tensors,
    "maps.npy": write_array,
    "picture.png": write_picture,
    "results.json": lambda path: write_json(path, list(range(100_000))),
    "report.html": lambda path: write_text(path, "x" * 200_000),
}


@contextlib.contextmanager
def small_files():
    """Files of this process may have 100,000 bytes, as on a full disk but for the number of the error."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:  # before pytest writes to its log
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
@pytest.mark.parametrize("name", LARGE)
def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path, name):
    (tmp_path / name).write_text("before")
    with small_files(), pytest.raises(WriteError) as caught:
        LARGE[name](tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and re.search(
        r"[\d,]+ bytes are free on the disk", str(caught.value)
    )
    assert "unexpected pos" not in str(caught.value) and (tmp_path / name).read_text() == "before"
    assert names(tmp_path) == [name]


@posix
def test_the_error_gives_sizes_and_remedy(tmp_path):
    words = "File too large.*needs about 400,000 bytes.*written and removed.*ulimit"
    with small_files(), pytest.raises(WriteError, match=words):
        LARGE["model.pth"](tmp_path / "model.pth")


@pytest.mark.parametrize(
    "number, remedy",
    [(errno.ENOSPC, "Free some space"), (errno.EDQUOT, "Free some space"), (errno.EIO, "Choose a folder")],
)
def test_an_error_of_flushing_is_a_write_error(tmp_path, monkeypatch, number, remedy):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=remedy) as caught:
        write_text(tmp_path / "a.txt", "text")
    assert caught.value.errno == number and isinstance(caught.value, OSError) and isinstance(caught.value, DenseRCError)
    assert not names(tmp_path)


def test_a_place_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt", tmp_path, "/proc/none/a.txt"):
        with pytest.raises(WriteError, match=re.escape(f"{path} cannot be written")):
            write_text(path, "text")
    for path in (f"{tmp_path}/a\0b", f"{tmp_path}/\ud800.txt", tmp_path / ("x" * 300)):
        with pytest.raises(WriteError):
            write_text(path, "text")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["ä" * 120 + ".json", "a[1]*?.json", ".hidden", "no suffix", "a.json.gz"])
def test_names_of_every_kind_are_written(tmp_path, name):
    write_text(tmp_path / name, "text")
    assert names(tmp_path) == [name] and (tmp_path / name).read_text() == "text"


@pytest.mark.parametrize("error", [KeyError("a"), DataError("a"), RuntimeError("a"), ValueError("a")])
def test_errors_of_the_content_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "a"):
        raise error
    assert caught.value is error


def test_errors_about_other_files_stay_what_they_are(tmp_path):
    for place in (atomic_path(tmp_path / "a"), write_errors(tmp_path / "a")):
        with pytest.raises(FileNotFoundError) as caught, place:
            (tmp_path / "other").read_text()
        assert not isinstance(caught.value, WriteError)


def test_a_stream_that_cannot_grow_is_named(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(WriteError, match="log.jsonl cannot be written: No space left.*Free some space"):
        with write_errors(tmp_path / "log.jsonl"), open("/dev/full", "w") as file:
            file.write("line\n")
            file.flush()
