"""Two processes evaluate as one: boxes, masks, both LVIS protocols and the proposals' recall."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.evaluation import run_ranks
from tests.paths import ROOT


def test_two_processes_find_the_same_and_only_the_first_reports(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, str(Path(__file__).parent / "run_ranks.py"), "2", port, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"results{rank}.json").read_text()) for rank in range(2))
    alone = tmp_path / "alone"
    alone.mkdir()
    try:
        expected = run_ranks.evaluate(alone, 0, 1)
    finally:
        DatasetCatalog.remove("ranks")
        MetadataCatalog.remove("ranks")
    assert second == {}
    assert list(first) == list(expected)
    assert set(first) == {"ov_lvis", "ov_lvis_masks", "ov_lvis_fixed", "ov_lvis_fixed_masks", "proposals"}
    for task, metrics in expected.items():
        assert first[task] == pytest.approx(metrics, abs=1e-9, nan_ok=True)
    assert first["ov_lvis"]["AP_all"] > 0
    written = {path.name: path.read_text() for path in (tmp_path / "rank0/out").iterdir()}
    assert written == {path.name: path.read_text() for path in (alone / "out").iterdir()}
    assert not list((tmp_path / "rank1/out").iterdir())  # its log is gone
