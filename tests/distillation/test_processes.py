"""Several processes train as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from denserc.distillation.state import latest_state, read_state


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(image_folder, tmp_path):
    script, root = Path(__file__).parent / "run_processes.py", Path(__file__).parents[2]
    states = []
    for world in (1, 2):
        output = tmp_path / str(world)
        command = [sys.executable, str(script), str(world), free_port(), str(image_folder), str(output)]
        done = subprocess.run(command, cwd=root, env=_environment(root), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        states.append(read_state(latest_state(output)))
    one, two = states
    assert one["images_drawn"] == two["images_drawn"] == 20
    assert len(two["generators"]) == 2
    for name, value in one["student"].items():
        torch.testing.assert_close(value, two["student"][name], atol=1e-5, rtol=0)


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
