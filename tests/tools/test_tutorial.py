"""docs/TUTORIAL.md and docs/TUTORIAL_SEGMENTATION.md, every command in them, in their order."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

FEW = "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 0 SEED 1 INPUT.SIZE 64"
NOVEL = {"dotted red circle", "striped green square", "solid blue ring"}


def commands(page: str) -> str:
    return "\n".join(re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs" / page).read_text(), flags=re.S | re.M))


def run_commands(page: str, folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "denserc").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m denserc "$@"\n')
    (folder / "bin" / "denserc").chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "MORE": FEW, "DETECTRON2_DATASETS": "none"}
    script = f"set -euo pipefail\n{commands(page)}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def table(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path):
    run_commands("TUTORIAL.md", tmp_path)
    trained = table(tmp_path / "output/toys/detector/inference/toys_val/ov_coco_classes.csv")
    assert len(trained) == 65
    assert {row["class"] for row in trained if "novel" in row.values()} == NOVEL
    other = table(tmp_path / "output/toys/elsewhere/inference/elsewhere_val/coco_classes.csv")
    assert len(other) == 65 and not {row["class"] for row in other} & {row["class"] for row in trained}


@pytest.mark.slow
def test_the_segmentation_tutorial_runs_as_it_stands(tmp_path):
    run_commands("TUTORIAL_SEGMENTATION.md", tmp_path)
    trained = table(tmp_path / "output/rooms/segmenter/inference/rooms_val/sem_seg_classes.csv")
    assert len(trained) == 73 and {row["class"] for row in trained if row["group"] == "unseen"} == NOVEL
    other = table(tmp_path / "output/rooms/elsewhere/inference/elsewhere_val/sem_seg_classes.csv")
    assert len(other) == 73 and len({row["class"] for row in other} & {row["class"] for row in trained}) <= 8
    assert len(table(tmp_path / "output/rooms/pictures/areas.csv")) >= 8  # of four pictures by two models
    assert (tmp_path / "output/rooms/pictures/segmentation.html").is_file()
