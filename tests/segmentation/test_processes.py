"""Two CPU processes under torchrun train CAT-Seg and evaluate it as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.utils.env import seed_all_rng

from denserc.data.datasets.registration import register_from_yaml
from denserc.evaluation import detection_evaluators
from denserc.openvocab.engine import build
from denserc.segmentation.engine import run
from denserc.structures import ConfigurationError
from tests.detection.squares import CLASSES
from tests.paths import ROOT
from tests.segmentation.squares import register_squares, squares_config


def metrics(cfg) -> dict[str, float]:
    """The last value of each."""
    found = {}
    for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines():
        found |= json.loads(line)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_equal_one_with_twice_the_batch(tmp_path, forget_registered, sharding):
    register_squares(tmp_path)
    folders = {"images": ".", "labels": "labels"}
    own = {"name": "own", "classes": list(CLASSES), "train": folders, "val": folders}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    changes = {"DATASETS__REGISTER": (str(tmp_path / "own.yaml"),), "DATASETS__TRAIN": ("own_train",)}
    changes |= {"DATASETS__TEST": ("own_val",), "SOLVER__MAX_ITER": 3, "SOLVER__BASE_LR": 0.001}
    changes["SOLVER__SHARDING"] = sharding
    if sharding == "fsdp":
        changes["MODEL__CATSEG__TRAIN__TEXT"] = "none"
    alone, together = (squares_config(tmp_path, **changes, OUTPUT_DIR=str(tmp_path / name)) for name in ("one", "two"))
    (tmp_path / "config.yaml").write_text(together.dump())
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "projects/CATSeg/train_net.py"]
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
    run(alone, evaluator_factory=detection_evaluators(alone))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output

    first, second = metrics(alone), metrics(together)
    names = [name for name in first if "loss" in name or name == "grad_norm" or "/sem_seg/" in name]
    assert {"total_loss", "loss_sem_seg", "grad_norm", "own_val/sem_seg/mIoU"} <= set(names)
    for name in names:
        assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-4, nan_ok=True), name
    one, two = (
        torch.load(Path(c.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"] for c in (alone, together)
    )
    assert one.keys() == two.keys()
    key = "aggregator.head.weight"
    torch.testing.assert_close(one[key], two[key], atol=1e-5, rtol=1e-3)


def test_a_text_tower_that_learns_is_not_sharded(tmp_path):
    """Its embeddings are computed outside of the model's forward."""
    cfg = squares_config(tmp_path, DATASETS__TRAIN=(), DATASETS__TEST=(), SOLVER__SHARDING="fsdp")
    with pytest.raises(ConfigurationError, match="MODEL.CATSEG.TRAIN.TEXT"):
        build(cfg)
