"""Two CPU processes under torchrun train and evaluate as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.utils.env import seed_all_rng

from denserc.data.registration import register_from_yaml
from denserc.detection.engine import run
from denserc.evaluation import build_evaluator
from tests.detection.squares import CLASSES, NOTHING_DRAWN, squares_config, write_squares

ROOT = Path(__file__).parents[2]


def metrics(cfg) -> dict[str, float]:
    """The last value of each."""
    found = {}
    for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines():
        found |= json.loads(line)
    return found


@pytest.mark.slow
def test_two_processes_of_torchrun_equal_one_with_twice_the_batch(tmp_path):
    """The real command; losses, the norm of the averaged gradient and AP are those of one process."""
    write_squares(tmp_path, crowd=False)
    files = {"annotations": "squares.json", "images": "."}
    described = {"name": "own", "base": list(CLASSES[:2]), "novel": list(CLASSES[2:]), "train": files, "val": files}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(described))
    changes = {
        "DATASETS__REGISTER": (str(tmp_path / "own.yaml"),),
        "DATASETS__TRAIN": ("own_train",),
        "DATASETS__TEST": ("own_val",),
        "SOLVER__MAX_ITER": 2,
        "SOLVER__WARMUP_ITERS": 0,
        "SOLVER__EMA__DECAY": 0.5,
        "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
    }
    alone, together = (
        squares_config(tmp_path, **NOTHING_DRAWN, **changes, OUTPUT_DIR=str(tmp_path / name)) for name in ("one", "two")
    )
    (tmp_path / "config.yaml").write_text(together.dump())
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "projects/FViT/train_net.py"]
    process = subprocess.Popen(
        [sys.executable, *command, "--config-file", str(tmp_path / "config.yaml")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    register_from_yaml(tmp_path / "own.yaml")
    seed_all_rng(alone.SEED)  # as the command does: the random initial weights
    run(alone, evaluator_factory=build_evaluator)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output

    first, second = metrics(alone), metrics(together)
    names = [name for name in first if "loss" in name or name == "grad_norm" or "/ov_coco/" in name]
    assert {"total_loss", "loss_cls", "loss_rpn_cls", "grad_norm", "own_val/ov_coco/AP50_novel"} <= set(names)
    for name in names:
        assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-5, nan_ok=True), name
    contents = [torch.load(Path(c.OUTPUT_DIR) / "model_final.pth", weights_only=True) for c in (alone, together)]
    assert contents[0].keys() == contents[1].keys() >= {"model", "average", "trainer"}
    assert contents[0]["model"].keys() == contents[1]["model"].keys()
