"""An evaluation that is killed continues where it was, and ends with the figures of an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from denserc.data.images.labels import write_labels
from tests.paths import ROOT
from tests.segmentation.squares import squares_config

PICTURES = 24
PREDICTIONS = "inference/many_val/predictions"


@pytest.fixture
def config(tmp_path):
    """A small random CAT-Seg and a set of 24 pictures, described by files."""
    (tmp_path / "images").mkdir()
    for i in range(PICTURES):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"images/{i:02}.png")
        write_labels(tmp_path / f"labels/{i:02}.png", rng.integers(0, 3, (48, 64)).astype(np.uint8))
    (tmp_path / "many.yaml").write_text(
        "name: many\nclasses: [red, green, blue]\nnovel: [blue]\nval: {images: images, labels: labels}\n"
    )
    cfg = squares_config(tmp_path, DATASETS__TRAIN=(), DATASETS__TEST=("many_val",))
    cfg.merge_from_list(["DATASETS.REGISTER", (str(tmp_path / "many.yaml"),), "MODEL.CATSEG.OUTPUT", "labels"])
    (tmp_path / "catseg.yaml").write_text(cfg.dump())
    return tmp_path / "catseg.yaml"


def start(config, output, *options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "projects/CATSeg/train_net.py"), "--config-file", str(config), "--eval-only"]
    with (output.parent / f"{output.name}.log").open("w") as log:
        return subprocess.Popen(
            [*command, "OUTPUT_DIR", str(output), *options], cwd=ROOT, env=environment, stdout=log, stderr=log
        )


def predictions(output) -> dict:
    """Label maps that are written, with their times."""
    return {file.name: file.stat().st_mtime_ns for file in (output / PREDICTIONS).glob("[0-9]*.png")}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_evaluation_loses_nothing(config, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(config, whole).wait() == 0, (tmp_path / "whole.log").read_text()[-3000:]
    process = start(config, killed)
    while len(predictions(killed)) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "killed.log").read_text()[-3000:]
    before = predictions(killed)
    assert 4 <= len(before) < PICTURES
    assert not (killed / "inference/many_val/sem_seg_results.json").exists()

    assert start(config, killed, "TEST.RESUME_PREDICTIONS", "True").wait() == 0
    after = predictions(killed)
    assert len(after) == PICTURES and before.items() <= after.items()  # none is made again
    assert f"{len(before)} of {PICTURES} images were predicted already" in (tmp_path / "killed.log").read_text()
    for name in ("sem_seg_results.json", "sem_seg_classes.csv"):
        one, two = (folder / "inference/many_val" / name for folder in (whole, killed))
        assert one.read_bytes() == two.read_bytes()
    for name in after:
        assert (whole / PREDICTIONS / name).read_bytes() == (killed / PREDICTIONS / name).read_bytes()
    metrics = json.loads((killed / "inference/many_val/sem_seg_results.json").read_text())["metrics"]
    assert 0 < metrics["mIoU"] < 100
