"""How a command finds out in how many processes it runs."""

import pytest
import torch
import torch.distributed as dist

from denserc.launch import TorchrunProcess, launch_command
from denserc.structures import ConfigurationError

VARIABLES = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture()
def torchrun(monkeypatch):
    def under(**changes):
        for name, value in {**VARIABLES, **changes}.items():
            monkeypatch.setenv(name, value)

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return under


def test_place_comes_from_torchruns_variables_alone(torchrun, monkeypatch):
    assert TorchrunProcess.from_environment() is None
    torchrun()
    assert TorchrunProcess.from_environment() == TorchrunProcess(3, 4, 1, 2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # as other schedulers leave it
    assert TorchrunProcess.from_environment() is None


def test_two_ways_of_starting_processes_at_once_are_refused(torchrun):
    torchrun()
    with pytest.raises(ConfigurationError, match="torchrun started 4 processes and --num-gpus 2"):
        launch_command(print, ["--num-gpus", "2"])


def test_one_process_of_torchrun_needs_no_group(torchrun):
    torchrun(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    seen = []
    launch_command(lambda args: seen.append((args.config_file, dist.is_initialized())), ["--config-file", "x"])
    assert seen == [("x", False)]


def test_more_processes_than_gpus_are_refused(torchrun, monkeypatch, tmp_path):
    torchrun()
    config = tmp_path / "cfg.yaml"
    config.write_text("MODEL:\n  DEVICE: cuda\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match="2 processes, but this machine has 1 GPUs"):
        launch_command(print, ["--config-file", str(config)])


def test_help_tells_both_ways(torchrun, capsys):
    with pytest.raises(SystemExit):
        launch_command(print, ["--help"])
    assert "torchrun --nproc_per_node=4" in capsys.readouterr().out
