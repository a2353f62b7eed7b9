"""Inputs that once failed, kept as files: corpus/TARGET/NAME, whose suffix is the suffix that the file is read with."""

from pathlib import Path

import pytest

from . import data_targets, model_targets  # noqa: F401, they register their targets
from .targets import TARGETS
from .worker import Worker
from .world import write

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*"))


def content_of(file: Path) -> bytes | tuple[bytes, str]:
    """Input of the target of this file: targets of several formats get the suffix too."""
    content = file.read_bytes()
    return (content, file.suffix) if isinstance(TARGETS[file.parent.name].valid, tuple) else content


@pytest.mark.parametrize("name", sorted({file.parent.name for file in CORPUS}))
def test_what_once_failed_is_read_or_refused(name, tmp_path, forget_registered):
    write(tmp_path)
    worker = Worker(name, tmp_path)
    outcomes = {file.name: worker(content_of(file)) for file in CORPUS if file.parent.name == name}
    worker.stop()
    failed = {file: f"{one.kind}: {one.detail[-600:]}" for file, one in outcomes.items() if one.is_failure}
    assert not failed, failed
