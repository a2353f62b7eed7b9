"""A training that is killed repeatedly ends with the same result as an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from denserc.construction import load_checkpoint
from denserc.distillation.export import PRODUCT_NAME
from denserc.distillation.trainer import latest_state, read_state
from denserc.structures.files import partial_files
from tests.paths import ROOT

KILLS = 10


def assert_same_bits(one, two, where=""):
    """Nested dictionaries and sequences, tensors compared bit by bit."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            assert_same_bits(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for index, (first, second) in enumerate(zip(one, two, strict=True)):
            assert_same_bits(first, second, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_ten_times_ends_bit_identically(make_cfg, tmp_path):
    """SIGKILL in the middle of writing a state, between gradients and step, and from outside at any moment."""
    cfg = make_cfg("SOLVER.MAX_ITER", 24, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.EMA.DECAY", 0.9)
    cfg.merge_from_list(["SOLVER.ACCUMULATE", 2, "DISTILL.EXPORT_BLEND", 0.7])
    config = tmp_path / "cfg.yaml"
    config.write_text(cfg.dump())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["KILLED_LOG"] = str(tmp_path / "log.txt")
    script = str(Path(__file__).parent / "killed_training.py")
    done = subprocess.run(
        [sys.executable, script, str(config), str(tmp_path), str(KILLS), "7"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    log = tmp_path / "log.txt"
    assert done.returncode == 0, done.stderr + (log.read_text()[-5000:] if log.exists() else "")
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == [-signal.SIGKILL] * KILLS and report["last"] == 0, report
    assert report["partials"] > 0, "no kill hit the writing of a state"
    assert len(set(report["states"])) > 3 and report["states"][-1] < report["steps"] == 24, report

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    one, two = (read_state(latest_state(folder)) for folder in (undisturbed, killed))
    assert one["iteration"] == 23
    assert_same_bits(one, two)  # student, average, optimizer, images drawn
    one, two = (load_checkpoint(folder / PRODUCT_NAME) for folder in (undisturbed, killed))
    assert_same_bits(one.encoder.state_dict(), two.encoder.state_dict())
    assert not partial_files(killed)
