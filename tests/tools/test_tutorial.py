"""docs/TUTORIAL.md, every command in it, in its order."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

FEW = "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 0 SEED 1 INPUT.SIZE 64"


def commands() -> str:
    return "\n".join(
        re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs" / "TUTORIAL.md").read_text(), flags=re.S | re.M)
    )


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path):
    commands_folder = tmp_path / "bin"
    commands_folder.mkdir()
    (commands_folder / "denserc").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m denserc "$@"\n')
    (commands_folder / "denserc").chmod(0o755)
    path = os.pathsep.join([str(commands_folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "MORE": FEW, "DETECTRON2_DATASETS": "none"}
    script = f"set -euo pipefail\n{commands()}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    def table(path):
        with (tmp_path / "output" / "toys" / path).open() as file:
            return list(csv.DictReader(file))

    trained = table("detector/inference/toys_val/ov_coco_classes.csv")
    assert len(trained) == 65
    novel = {row["class"] for row in trained if "novel" in row.values()}
    assert novel == {"dotted red circle", "striped green square", "solid blue ring"}
    other = table("elsewhere/inference/elsewhere_val/coco_classes.csv")
    assert len(other) == 65 and not {row["class"] for row in other} & {row["class"] for row in trained}
