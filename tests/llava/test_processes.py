"""Two CPU processes train as one: each with the whole model, and with weights shared by FSDP2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from denserc.structures import ConfigurationError
from tests.llava.conftest import llava_config
from tests.paths import ROOT

pytest.importorskip("transformers", reason="needs denserc[llava]")

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "projects/LLaVA/train_net.py"]
FSDP = {
    "distributed_type": "FSDP",
    "mixed_precision": "no",
    "num_machines": 1,
    "num_processes": 2,
    "main_process_port": 0,
    "use_cpu": True,
    "fsdp_config": {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": True,
    },
}


def call(*words: str) -> subprocess.CompletedProcess:
    """Python in the repository, whose folder `datasets` has the name of a package that the training needs."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def two_processes_config(tmp_path, start, instructions, name: str, passes: int):
    """Four passes of one example per step over all processes, some of them without a picture."""
    words = ("SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATE", passes)
    return llava_config(tmp_path / name, start, instructions, *words)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, start, instructions) -> Path:
    """OUTPUT_DIR of one process."""
    from denserc.llava.engine import run

    folder = tmp_path_factory.mktemp("alone")
    run(two_processes_config(folder, start, instructions, "one", 4))
    return folder / "one"


def assert_same_training(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, atol=2e-3, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert all(torch.equal(second[name], value) for name, value in first.items() if name.startswith("vision_tower."))
    losses = [{line["iteration"]: line["loss"] for line in lines(folder) if "loss" in line} for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3) and sorted(losses[0]) == [1, 2, 3, 4, 5, 6]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_of_torchrun_equal_one(tmp_path, alone, start, instructions):
    cfg = two_processes_config(tmp_path, start, instructions, "two", 2)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    process = call(*TORCHRUN, "--config-file", str(tmp_path / "config.yaml"))
    assert process.returncode == 0, process.stdout
    assert_same_training(alone, tmp_path / "two")


@pytest.mark.slow
def test_two_processes_of_fsdp_equal_one_and_resume(tmp_path, alone, start, instructions):
    """Interrupted in the sixth step and resumed from the divided checkpoint after the fourth."""
    cfg = two_processes_config(tmp_path, start, instructions, "two", 2)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    (tmp_path / "fsdp.yaml").write_text(yaml.safe_dump(FSDP))
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "fsdp.yaml")]
    launch += ["tests/llava/run_sharded.py", "--config-file", str(tmp_path / "config.yaml")]
    (tmp_path / "two" / "interrupt").touch()
    process = call(*launch)
    assert process.returncode != 0 and "interrupted as asked" in process.stdout, process.stdout
    assert (tmp_path / "two" / "checkpoint-4" / "pytorch_model_fsdp_0").is_dir()
    (tmp_path / "two" / "interrupt").unlink()
    process = call(*launch, "--resume")
    assert process.returncode == 0, process.stdout
    assert "2 of 6 steps are to do" in process.stdout
    assert_same_training(alone, tmp_path / "two")


def test_processes_of_another_launcher_are_refused(tmp_path, start, instructions, monkeypatch):
    from denserc.llava import engine

    monkeypatch.setattr(engine.comm, "get_world_size", lambda: 2)
    with pytest.raises(ConfigurationError, match="2 processes were started, and accelerate found 1. .* torchrun"):
        engine.run(llava_config(tmp_path / "out", start, instructions, "SOLVER.IMS_PER_BATCH", 4))
