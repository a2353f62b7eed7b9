"""The checkpoint that --resume takes: the named one, otherwise the newest whole one."""

import logging
from pathlib import Path

import pytest
import torch

from denserc.engine import TrainingCheckpointer
from denserc.engine.checkpoint import is_whole, last_checkpoint
from denserc.structures import CheckpointError, WriteError
from tests.paths import FIXTURES

CASES = FIXTURES / "cases"


def write(folder: Path, *names: str, pointer: str | bytes | None = None) -> None:
    """Checkpoints, "model_final" of step 12 and others of the step in their name, and the file that names one."""
    for name in names:
        number = name.rpartition("_")[2]
        iteration = int(number) if number.isdigit() else 11
        torch.save({"model": {"a": torch.arange(4000)}, "iteration": iteration}, folder / f"{name}.pth")
    if pointer is not None:
        (folder / "last_checkpoint").write_bytes(pointer if isinstance(pointer, bytes) else pointer.encode())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def found(folder: Path) -> str | None:
    path = last_checkpoint(folder, "model")
    return path and path.name


def test_the_named_checkpoint_is_taken_in_silence(tmp_path, caplog):
    assert found(tmp_path) is None
    write(tmp_path, "model_0000003", "model_0000005", pointer="model_0000003.pth\n")
    assert found(tmp_path) == "model_0000003.pth" and not caplog.records


@pytest.mark.parametrize(
    "pointer, reason",
    [
        (None, "is absent"),
        ((CASES / "fuzz-57-last-checkpoint-empty" / "last_checkpoint").read_bytes(), "names nothing"),
        (b"\0" * 17, "names nothing"),
        (b" \n", "names nothing"),
        (b"\xff\xfe", "names nothing"),
        ("../model_0000003.pth", "names nothing"),
        ("/etc/passwd", "names nothing"),
        ("..", "names .., which does not exist"),
        ("model_0000003.pth\nmodel_0000005.pth", "names nothing"),
        ("model_0000007.pth", "names model_0000007.pth, which does not exist"),
        ("model_000", "names model_000, which does not exist"),
    ],
)
def test_otherwise_the_newest_whole_one_is_taken(tmp_path, caplog, pointer, reason):
    write(tmp_path, "model_0000003", "model_0000005", "model_best", pointer=pointer)
    write(tmp_path, "state_0000009", "model_extra_0000009")
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) == "model_0000005.pth"
    assert reason in caplog.text and "newest whole checkpoint, model_0000005.pth" in caplog.text
    cut(tmp_path / "model_0000005.pth")
    assert found(tmp_path) == "model_0000003.pth"


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, damage):
    write(tmp_path, "model_0000003", "model_0000005", pointer="model_0000005.pth")
    assert is_whole(tmp_path / "model_0000005.pth")
    damage(tmp_path / "model_0000005.pth")
    assert found(tmp_path) == "model_0000003.pth" and "model_0000005.pth, which" in caplog.text
    damage(tmp_path / "model_0000003.pth")
    with pytest.raises(CheckpointError, match=r"names model_0000005.pth, .*cannot be read.*without --resume"):
        found(tmp_path)


def test_the_newest_is_that_of_the_most_steps(tmp_path):
    write(tmp_path, "model_0000005", "model_final", pointer="")
    assert found(tmp_path) == "model_final.pth"  # of step 12
    write(tmp_path, "model_0000013")  # of a training that was continued with more steps
    assert found(tmp_path) == "model_0000013.pth"
    write(tmp_path, "model_0000011")
    (tmp_path / "model_0000013.pth").unlink()
    assert found(tmp_path) == "model_final.pth"  # of the same step
    (tmp_path / "model_final.pth").write_bytes(b"")
    write(tmp_path, "model_10000000")
    assert found(tmp_path) == "model_10000000.pth"


def test_folders_and_foreign_files_are_no_checkpoints(tmp_path):
    (tmp_path / "model_0000005.pth").mkdir()
    write(tmp_path, "model_best")
    with pytest.raises(CheckpointError, match="cannot be read"):
        found(tmp_path)
    write(tmp_path, "model_0000001")
    assert found(tmp_path) == "model_0000001.pth"


def test_a_checkpointer_looks_once_and_knows_what_it_wrote(tmp_path, monkeypatch):
    checkpointer = TrainingCheckpointer(torch.nn.Linear(2, 2), str(tmp_path))
    assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""
    checkpointer.save("model_0000001")
    assert checkpointer.has_checkpoint() and (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    assert not TrainingCheckpointer(torch.nn.Linear(2, 2)).has_checkpoint()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="model_0000003.pth cannot be written: No space left.*about 24 bytes"):
        checkpointer.save("model_0000003")
    with pytest.raises(WriteError, match="last_checkpoint cannot be written"):
        checkpointer.tag_last_checkpoint("model_0000003.pth")
    assert found(tmp_path) == "model_0000001.pth" and len(list(tmp_path.iterdir())) == 2
