"""Several processes train as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from denserc.distillation.engine import run
from denserc.distillation.state import latest_state, read_state


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(make_cfg, tmp_path):
    changes = ("SOLVER.MAX_ITER", 5, "DISTILL.REGIONS.MAX_SPLIT", 3)
    alone = make_cfg("OUTPUT_DIR", str(tmp_path / "one"), *changes)
    together = make_cfg("OUTPUT_DIR", str(tmp_path / "two"), *changes)
    config = tmp_path / "two.yaml"
    config.write_text(together.dump())

    root, port = Path(__file__).parents[2], free_port()
    script = str(Path(__file__).parent / "run_processes.py")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", port, str(config)],
            cwd=root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    run(alone)
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    one, two = (read_state(latest_state(cfg.OUTPUT_DIR)) for cfg in (alone, together))
    assert one["images_drawn"] == two["images_drawn"] == 20
    assert len(two["generators"]) == 2
    for name, value in one["student"].items():
        torch.testing.assert_close(value, two["student"][name], atol=1e-5, rtol=0)
