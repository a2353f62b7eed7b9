"""A detector file for commands that take one."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from denserc.config import get_denserc_config
from denserc.detection.convert import write_detector
from tests.paths import ROOT


@pytest.fixture(scope="session")
def detector(tmp_path_factory) -> Path:
    """A checkpoint of the miniature's detector, all weights random."""
    cfg = get_denserc_config()
    cfg.merge_from_file(str(ROOT / "configs" / "miniature" / "fvit.yaml"))
    cfg.MODEL.ENCODER.RANDOM_INIT, cfg.MODEL.DEVICE = True, "cpu"
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    path = tmp_path_factory.mktemp("detector") / "model.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_detector(path, build_model(cfg), cfg)
    return path
