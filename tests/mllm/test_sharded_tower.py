"""A tower whose weights two processes share: the same tokens, and its fingerprint is checked inside of FSDP."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

pytest.importorskip("transformers", reason="needs denserc[llava]")


@pytest.mark.slow
def test_two_processes_share_a_tower(checkpoints, tmp_path):
    script = Path(__file__).with_name("run_sharded_tower.py")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, checkpoints["openai"], tmp_path / "store"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"process (\d): equal, and the other one refused", done.stdout)) == ["0", "1"]
