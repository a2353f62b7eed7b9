"""Two CPU processes under torchrun train and evaluate as one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.env import seed_all_rng

from denserc.data.datasets.registration import register_from_yaml
from denserc.detection.engine import run
from denserc.evaluation import build_evaluator
from tests.detection.squares import CLASSES, NOTHING_DRAWN, squares_config, write_squares
from tests.paths import ROOT


def metrics(cfg) -> dict[str, float]:
    """The last value of each."""
    found = {}
    for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines():
        found |= json.loads(line)
    return found


def described(folder: Path, images: int = 6) -> str:
    """The path of a YAML file that describes own_train and own_val, the squares of a folder."""
    write_squares(folder, crowd=False)
    content = json.loads((folder / "squares.json").read_text())
    content["images"] = content["images"][:images]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] < images]
    (folder / "squares.json").write_text(json.dumps(content))
    files = {"annotations": "squares.json", "images": "."}
    own = {"name": "own", "base": list(CLASSES[:2]), "novel": list(CLASSES[2:]), "train": files, "val": files}
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    return str(folder / "own.yaml")


@pytest.fixture()
def forgotten():
    """Takes own_train and own_val out of Detectron2's catalogs afterwards."""
    yield
    for name in ("own_train", "own_val"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def torchrun(config: Path, *arguments: str) -> subprocess.Popen:
    """The real command in two processes."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "projects/FViT/train_net.py"]
    return subprocess.Popen(
        [sys.executable, *command, "--config-file", str(config), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [set(), {3}], ids=["whole", "damaged"])
def test_two_processes_evaluate_and_write_the_same_as_one(tmp_path, forgotten, damaged):
    """Five images, so that the shares differ: none is repeated, and every file is the same to the byte."""
    changes = {"DATASETS__REGISTER": (described(tmp_path, images=5),), "DATASETS__TRAIN": ("own_train",)}
    changes |= {"DATASETS__TEST": ("own_val",), "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0, "SOLVER__MAX_ITER": 1}
    alone = squares_config(tmp_path, **changes, OUTPUT_DIR=str(tmp_path / "one"))
    register_from_yaml(tmp_path / "own.yaml")
    for image in damaged:
        (tmp_path / f"{image}.png").write_bytes(b"")
    run(alone, evaluator_factory=build_evaluator)
    weights = str(tmp_path / "one" / "model_final.pth")
    together = squares_config(tmp_path, **changes, OUTPUT_DIR=str(tmp_path / "two"), MODEL__WEIGHTS=weights)
    (tmp_path / "config.yaml").write_text(together.dump())
    process = torchrun(tmp_path / "config.yaml", "--eval-only")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "inference/own_val").iterdir()}
        for name in ("one", "two")
    )
    assert one == two and one
    found = json.loads(one["coco_instances_results.json"])
    assert {detection["image_id"] for detection in found} == set(range(5)) - damaged
    assert ("1 of 5 images could not be read" in output) is bool(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_torchrun_processes_equal_one_with_twice_the_batch(tmp_path, forgotten, sharding):
    """The real command; losses, gradient norm, AP and checkpoints are those of one process, which resumes them too."""
    changes = {
        "DATASETS__REGISTER": (described(tmp_path),),
        "DATASETS__TRAIN": ("own_train",),
        "DATASETS__TEST": ("own_val",),
        "SOLVER__MAX_ITER": 2,
        "SOLVER__WARMUP_ITERS": 0,
        "SOLVER__CHECKPOINT_PERIOD": 1,
        "SOLVER__EMA__DECAY": 0.5,
        "SOLVER__SHARDING": sharding,
        "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
    }
    alone, together = (
        squares_config(tmp_path, **NOTHING_DRAWN, **changes, OUTPUT_DIR=str(tmp_path / name)) for name in ("one", "two")
    )
    (tmp_path / "config.yaml").write_text(together.dump())
    process = torchrun(tmp_path / "config.yaml")
    register_from_yaml(tmp_path / "own.yaml")
    seed_all_rng(alone.SEED)  # as the command does: the random initial weights
    run(alone, evaluator_factory=build_evaluator)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert ("parameters of FViT are shared by 2 processes" in output) is (sharding == "fsdp")

    first, second = metrics(alone), metrics(together)
    names = [name for name in first if "loss" in name or name == "grad_norm" or "/ov_coco/" in name]
    assert {"total_loss", "loss_cls", "loss_rpn_cls", "grad_norm", "own_val/ov_coco/AP50_novel"} <= set(names)
    for name in names:
        # Scores of a barely trained detector nearly tie, and their order follows the last bits: of threads, too.
        close = {"rel": 2e-2, "abs": 0.05} if "/ov_coco/" in name else {"rel": 1e-3, "abs": 1e-5}
        assert second[name] == pytest.approx(first[name], nan_ok=True, **close), name
    contents = [torch.load(Path(c.OUTPUT_DIR) / "model_final.pth", weights_only=True) for c in (alone, together)]
    assert contents[0].keys() == contents[1].keys() >= {"model", "average", "trainer"}
    assert_close(*contents)
    best = torch.load(Path(together.OUTPUT_DIR) / "model_best.pth", weights_only=True)
    assert best["model"].keys() == contents[0]["model"].keys()

    resumed = squares_config(tmp_path, **NOTHING_DRAWN, **changes, OUTPUT_DIR=str(tmp_path / "resumed"))
    shutil.copy(Path(together.OUTPUT_DIR) / "model_0000000.pth", resumed.OUTPUT_DIR)
    (tmp_path / "resumed" / "last_checkpoint").write_text("model_0000000.pth")
    run(resumed, resume=True)
    assert_close(torch.load(Path(resumed.OUTPUT_DIR) / "model_final.pth", weights_only=True), contents[1])


def assert_close(one, two, where: str = "") -> None:
    """Checkpoints with the same entries, their tensors equal to rounding."""
    if isinstance(one, dict):
        # Settings name the folder, and digests of float32 text embeddings are bitwise equal anyway.
        assert one.keys() == two.keys(), where
        for key in one.keys() - {"denserc"}:
            assert_close(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, torch.Tensor):
        # Adam's first steps are the rate times the sign of a gradient: of a gradient near zero, that of the last bits.
        torch.testing.assert_close(one, two, atol=4e-3, rtol=1e-3, msg=lambda text: f"{where}: {text}")
        if one.is_floating_point():
            apart = int((~torch.isclose(one, two, atol=2e-4, rtol=1e-3)).sum())
            assert apart <= max(1, one.numel() // 1000), f"{where}: {apart} of {one.numel()} entries differ"
