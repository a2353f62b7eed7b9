"""Fixtures shared by all tests: the recorded EVA-02 of CLIPSelf and DeCLIP, and the miniature CLIP."""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.eva import Eva
from torch import nn

from denserc.encoders import ImageTower, build_clip, load_exactly, to_open_clip_keys
from denserc.encoders.towers.base import Clip
from denserc.encoders.towers.eva import EvaTower
from denserc.structures import CLIP_PIXELS
from tests.paths import CONFIGS, FIXTURES

RECORDED = FIXTURES / "encoders"


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, metavar="N", help="damaged inputs per kind of file (tests/fuzz), at random")


class Recorded:
    """Arrays recorded from CLIPSelf and DeCLIP (tests/fixtures/encoders), as tensors, by file and name."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._files = {}

    def __call__(self, file: str, name: str) -> torch.Tensor:
        if file not in self._files:
            self._files[file] = np.load(self._folder / f"{file}.npz")
        return torch.from_numpy(self._files[file][name])

    def weights(self) -> dict[str, torch.Tensor]:
        """The recorded weights in EVA-CLIP's original key format, float32."""
        state = {}
        for part in ("weights_a", "weights_b"):
            with np.load(self._folder / f"{part}.npz") as file:
                state |= {key: torch.from_numpy(file[key]).float() for key in file.files}
        return state


class _Visual(nn.Module):
    """The shape of open_clip's TimmModel: a trunk and a head that does nothing."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Identity()


def make_recorded_tower(weights: dict[str, torch.Tensor], **changes) -> EvaTower:
    """The tiny EVA-02 of the recordings; `changes` go to timm's constructor (for planted mistakes)."""
    options = {
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 6,
        "num_heads": 6,
        "mlp_ratio": 2.6667,
        "qkv_fused": False,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "scale_attn_inner": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (10, 10),
        "global_pool": "token",
        "num_classes": 48,
    }
    visual = _Visual(Eva(**{**options, **changes}))
    state = {k.removeprefix("visual."): v for k, v in to_open_clip_keys(weights).items() if k.startswith("visual.")}
    load_exactly(visual, state, "the recorded weights")
    return EvaTower(name="recorded", visual=visual, pixels=CLIP_PIXELS).eval()


@pytest.fixture(scope="session")
def recorded() -> Recorded:
    return Recorded(RECORDED)


@pytest.fixture(scope="session")
def recorded_tower(recorded) -> ImageTower:
    return make_recorded_tower(recorded.weights())


@pytest.fixture()
def miniature() -> Clip:
    """The miniature CLIP with random weights: its architecture, without the packaged weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_clip("DenseRC-Miniature", random_init=True)


@pytest.fixture
def forget_registered():
    """Leaves Detectron2's catalogs as they were."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def write_random_detector(path: Path, **changes) -> Path:
    """A checkpoint of the miniature's detector, all weights random.

    Args:
        changes: Values by dotted key with __ for the dots.
    """
    from detectron2.modeling import build_model

    from denserc.config import read_config
    from denserc.openvocab.checkpoint import write_model

    given = {"MODEL.ENCODER.RANDOM_INIT": True, "MODEL.DEVICE": "cpu", "DATASETS.TRAIN": (), "DATASETS.TEST": ()}
    given |= {key.replace("__", "."): value for key, value in changes.items()}
    overrides = [word for pair in given.items() for word in pair]
    cfg = read_config(CONFIGS / "miniature" / "fvit.yaml", overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_model(path, build_model(cfg), cfg)
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory) -> Path:
    """A checkpoint of the miniature's detector without masks, all weights random."""
    return write_random_detector(tmp_path_factory.mktemp("detector") / "model.pth")


@pytest.fixture(scope="session")
def mask_detector(tmp_path_factory) -> Path:
    """The same with a mask head, for square test inputs of 96 pixels."""
    changes = {"MODEL__MASK_ON": True, "MODEL__ROI_MASK_HEAD__NUM_CONV": 1, "MODEL__ROI_MASK_HEAD__CONV_DIM": 8}
    changes |= {"MODEL__ROI_MASK_HEAD__NORM": "BN", "TEST__INPUT_SIZE": 96}
    return write_random_detector(tmp_path_factory.mktemp("detector") / "masks.pth", **changes)
