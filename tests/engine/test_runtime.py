import logging
import sys

import pytest
import torch
from detectron2.engine import TrainerBase

from denserc.engine import ProgressBar, any_process, join_processes, resolve_device
from denserc.engine.hooks import lines_above_bars
from denserc.structures import ConfigurationError


@pytest.fixture()
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_and_cuda_fall_back_to_cpu_and_only_cuda_warns(no_gpu, caplog):
    with caplog.at_level(logging.WARNING):
        assert resolve_device("auto") == torch.device("cpu") == resolve_device("cpu")
    assert not caplog.records
    assert resolve_device("cuda:1") == torch.device("cpu")
    assert "no CUDA device" in caplog.text


def test_a_gpu_is_used_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigurationError, match="'cuda:2', but this machine has 2 GPUs"):
        resolve_device("cuda:2")


def test_one_process_decides_alone_and_needs_no_wrapper():
    model = torch.nn.Linear(2, 2)
    assert join_processes(model, torch.device("cpu")) is model
    assert any_process(True, torch.device("cpu")) and not any_process(False, torch.device("cpu"))


def test_synchronised_norms_in_cpu_processes_are_refused(monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(ConfigurationError, match="SyncBN layers, which need GPUs.*2 CPU processes"):
        join_processes(torch.nn.Sequential(torch.nn.SyncBatchNorm(3)), torch.device("cpu"))


class _Trainer(TrainerBase):
    def run_step(self):
        self.storage.put_scalars(loss_a=1.25, total_loss=2.5, lr=0.1)


@pytest.mark.parametrize(("names", "shown"), [((), "loss_a=1.2500"), (("total_loss",), "total_loss=2.5000")])
def test_the_bar_counts_steps_and_shows_losses(capsys, monkeypatch, names, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    trainer = _Trainer()
    trainer.register_hooks([ProgressBar("testing", names)])
    trainer.train(1, 4)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "testing: 100%" in last and "4/4" in last and shown in last and "lr" not in last


def test_lines_keep_their_levels_while_bars_are_shown(capsys, tmp_path):
    logger = logging.Logger("private")
    terminal, file = logging.StreamHandler(sys.stdout), logging.FileHandler(tmp_path / "log.txt")
    terminal.setLevel(logging.WARNING)
    logger.addHandler(terminal)
    logger.addHandler(file)
    with lines_above_bars([logger]):
        logger.info("quiet")
        logger.warning("loud")
    assert logger.handlers == [terminal, file]
    assert (tmp_path / "log.txt").read_text() == "quiet\nloud\n"
    shown = "".join(capsys.readouterr())
    assert "loud" in shown and "quiet" not in shown
