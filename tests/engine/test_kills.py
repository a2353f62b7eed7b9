"""Trainings that are killed at random moments end as undisturbed ones; many more: python -m tests.engine.kills."""

import json
import os
import subprocess
import sys

import pytest

from tests.engine.kills import TRAININGS, assert_same_ends
from tests.paths import ROOT

KILLS = 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("training", TRAININGS)
def test_killed_ten_times_ends_bit_identically(training, tmp_path):
    """SIGKILL in the middle of a checkpoint, around operations on files, and from outside at any moment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    options = ["--trainings", training, "--trials", str(KILLS), "--seed", "7", "--json", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.kills", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert sum(report["kills"].values()) == KILLS and min(report["kills"].values()) > 0, report
    assert report["unfinished"] > 0, "no kill hit the writing of a file"
    assert report["resumed"] > 1 and not report["failures"], report


def test_a_difference_is_found(tmp_path):
    """The comparison would notice one byte, one file and one leftover."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}\n")
        (tmp_path / name / "results.json").write_text("{}")
    one, two = tmp_path / "one", tmp_path / "two"
    assert_same_ends(one, two)
    for changed in ("results.json", "model_best.pth", ".training.lock", ".results.json.0.partial/partial.json"):
        file = two / changed
        before = file.read_text() if file.exists() else None
        file.parent.mkdir(exist_ok=True)
        file.write_text("[]")
        with pytest.raises(AssertionError):
            assert_same_ends(one, two)
        file.write_text(before) if before else file.unlink()
        if file.parent != two:
            file.parent.rmdir()
    assert_same_ends(one, two)
    (two / "metrics.json").write_text('{}\n{"iter')
    with pytest.raises(ValueError):
        assert_same_ends(one, two)
