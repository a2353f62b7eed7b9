"""Number and ranks of a command's processes."""

import os
import runpy
import sys

import pytest
import torch
import torch.distributed as dist
from detectron2.data import DatasetCatalog
from detectron2.engine import default_argument_parser

from denserc.launch import TorchrunProcess, data_root, launch_command, resume_command, setup
from denserc.structures import ConfigurationError, DataError
from tests.paths import CONFIGS, ROOT

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


def test_idle_threads_sleep_in_started_processes(torchrun, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    policies = []
    monkeypatch.setattr("denserc.launch.launch", lambda *a, **k: policies.append(os.environ.get("OMP_WAIT_POLICY")))
    launch_command(print, ["--config-file", "ovlvis_vitl14.yaml", "--num-gpus", "2"])
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    launch_command(print, ["--config-file", "ovlvis_vitl14.yaml", "--num-gpus", "2"])
    assert policies == ["PASSIVE", "ACTIVE"]


def test_one_process_of_torchrun_needs_no_group(torchrun):
    torchrun(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    seen = []
    given = ["--config-file", "ovlvis_vitl14.yaml"]
    launch_command(lambda args: seen.append((args.config_file, dist.is_initialized())), given)
    assert seen == [(str(CONFIGS / "ovlvis_vitl14.yaml"), False)]


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


def test_a_misspelt_config_is_named_before_anything_starts(torchrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"no file .*ovlvis_vitl15\.yaml.*the nearest: ovlvis_vitl14"):
        launch_command(print, ["--config-file", "ovlvis_vitl15.yaml", "--num-gpus", "2"])
    with pytest.raises(ConfigurationError, match="--config-file takes a file or the name"):
        launch_command(print, [])


def test_a_bare_name_works_from_any_folder(tmp_path, monkeypatch):
    """Outputs and data sets are relative to the current folder, not to that of the config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    args = default_argument_parser().parse_args(["--config-file", "ovlvis_vitl14.yaml", "MODEL.DEVICE", "cpu"])
    cfg = setup(args)
    assert cfg.MODEL.META_ARCHITECTURE == "FViT" and (tmp_path / cfg.OUTPUT_DIR / "config.yaml").is_file()
    with pytest.raises(DataError, match=f"{data_root()}/lvis"):
        DatasetCatalog.get("ov_lvis_v1_val")


def test_a_config_of_ones_own_has_a_packaged_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "my.yaml"
    own.write_text("_BASE_: ovcoco_vitb16\nMODEL: {DEVICE: cpu}\nSEED: 5\n")
    cfg = setup(default_argument_parser().parse_args(["--config-file", "my.yaml", "OUTPUT_DIR", "out"]))
    assert (cfg.SEED, cfg.MODEL.FVIT.BLOCKS, cfg.MODEL.META_ARCHITECTURE) == (5, [3, 5, 7, 11], "FViT")
    own.write_text("_BASE_: ovcoco_vitb61\n")
    with pytest.raises(ConfigurationError, match=r"my.yaml: _BASE_ is ovcoco_vitb61. There is no file.*ovcoco_vitb16"):
        setup(default_argument_parser().parse_args(["--config-file", "my.yaml"]))


@pytest.mark.parametrize(
    "words",
    [["OUTPUT_DIR", "x", "--resume"], ["OUTPUT_DIR", "--resume"], ["OUTPUT_DIR", "x", "--eval-only", "SEED", "1"]],
)
def test_a_flag_after_keys_is_named(torchrun, words):
    (flag,) = [word for word in words if word.startswith("--")]
    with pytest.raises(ConfigurationError, match=f"{flag} comes after KEY VALUE pairs .* Flags come first"):
        launch_command(print, ["--config-file", "ovlvis_vitl14", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--config-file", "absent.yaml"],
        ["--config-file", "fvit", "SEED"],
        ["--config-file", "fvit", "OUTPUT_DIR", ""],
        ["--config-file", "fvit", "OUTPUT_DIR", "out", "--resume"],
        ["--config-file", "fvit", "--num-gpus", "2", "SEDE", "1"],
    ],
)
@pytest.mark.parametrize("project", ["FViT", "CATSeg", "Distillation", "LLaVA"])
def test_scripts_end_with_one_line_and_status_2(torchrun, monkeypatch, capsys, tmp_path, project, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_net.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "projects" / project / "train_net.py"), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_the_command_that_continues_has_resume_once(monkeypatch):
    args = default_argument_parser().parse_args(["--config-file", "c.yaml", "--resume", "OUTPUT_DIR", "a b"])
    monkeypatch.setattr(
        sys, "argv", ["/x/bin/denserc", "train", "--config-file", "c.yaml", "--resume", "OUTPUT_DIR", "a b"]
    )
    assert resume_command(args) == "denserc train --config-file c.yaml --resume OUTPUT_DIR 'a b'"
