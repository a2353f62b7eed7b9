"""Several processes train as one, and stop as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from denserc.distillation.engine import run
from denserc.distillation.trainer import latest_state, read_state
from tests.paths import ROOT


def start(command: list[str], **variables: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_processes(config: Path, *broken: str) -> subprocess.Popen:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return start([str(Path(__file__).parent / "run_processes.py"), "2", port, str(config), *broken])


def output_of(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def curves(cfg) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "loss" in name} for line in lines if "total_loss" in line]


@pytest.fixture()
def make_pair(make_cfg, tmp_path):
    """A configuration and its file: five steps of four images, both losses on."""

    def make(name, *changes):
        changes = ("SOLVER.MAX_ITER", 5, "DISTILL.REGIONS.MAX_SPLIT", 3, "DISTILL.LOG_PERIOD", 1, *changes)
        cfg = make_cfg("OUTPUT_DIR", str(tmp_path / name), *changes)
        path = tmp_path / f"{name}.yaml"
        path.write_text(cfg.dump())
        return cfg, path

    return make


def assert_equal_trainings(one, two):
    """The same losses in each step and the same weights, to 1e-5."""
    assert len(curves(one)) == 5 and curves(one)[0].keys() == {"total_loss", "loss_semantics", "loss_coherence"}
    for first, second in zip(curves(one), curves(two), strict=True):
        assert first == pytest.approx(second, abs=1e-5)
    first, second = (read_state(latest_state(cfg.OUTPUT_DIR)) for cfg in (one, two))
    assert first["trainer"]["images_drawn"] == second["trainer"]["images_drawn"] == 20
    for name, value in first["model"].items():
        torch.testing.assert_close(value, second["model"][name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_torchrun_processes_equal_one_with_twice_the_batch(make_pair):
    """The real command under torchrun, against one process."""
    alone, _ = make_pair("one")
    together, config = make_pair("two")
    script = str(ROOT / "projects" / "Distillation" / "train_net.py")
    process = start(
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, "--config-file", str(config)],
        CUDA_VISIBLE_DEVICES="",
    )
    run(alone)
    output_of(process)
    assert_equal_trainings(alone, together)
    assert (Path(together.OUTPUT_DIR) / "denserc.safetensors").is_file()


@pytest.mark.slow
def test_accumulation_equals_twice_the_batch_in_one_and_two(make_pair):
    alone, _ = make_pair("one")
    halves, _ = make_pair("halves", "SOLVER.ACCUMULATE", 2, "DISTILL.GRADIENT_CHECKPOINTING", "selective")
    quarters, config = make_pair("quarters", "SOLVER.ACCUMULATE", 2, "DISTILL.VIEWS", "device")
    process = start_processes(config)
    run(alone)
    run(halves)
    output_of(process)
    assert_equal_trainings(alone, halves)
    assert_equal_trainings(alone, quarters)


@pytest.mark.slow
def test_all_processes_stop_when_the_loss_of_one_is_not_finite(make_pair):
    """None waits for the other for ever; the one at fault saves its batch, and no state has its weights."""
    cfg, config = make_pair("broken")
    output = output_of(start_processes(config, "1"))
    assert "STOPPED 0: Step 2: the loss of another process is not finite" in output
    assert "STOPPED 1: Step 2, process 1: the loss is not finite" in output
    files = [path.name for path in Path(cfg.OUTPUT_DIR).iterdir() if path.suffix == ".pt"]
    assert files == ["nan_batch_step2_rank1.pt"]
    assert torch.load(Path(cfg.OUTPUT_DIR) / files[0], weights_only=True)["draws"] == [[5, 7]]


@pytest.mark.slow
def test_unreadable_images_are_counted_over_the_processes(make_pair, image_folder):
    """Each process reads one of the two unreadable images; one of them would stay below the limit."""
    for name in ("0.png", "3.png"):
        (image_folder / name).write_bytes(b"")
    changes = ("SOLVER.MAX_ITER", 3, "SEED", 3, "DATALOADER.MAX_UNREADABLE")
    alone, _ = make_pair("one", *changes, 0.2)
    together, config = make_pair("two", *changes, 0.2)
    _, strict = make_pair("strict", *changes, 0.15)
    process = start_processes(config)
    run(alone)
    output_of(process)
    first, second = (read_state(latest_state(cfg.OUTPUT_DIR))["trainer"]["unreadable"] for cfg in (alone, together))
    assert first == second and {Path(path).name for path in first} == {"0.png", "3.png"}
    output = output_of(start_processes(strict))
    assert all(f"STOPPED {rank}: 2 of 10 images cannot be read, more than the 15.0%" in output for rank in (0, 1))
