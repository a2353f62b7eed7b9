"""Small images and configurations for the tests of the distillation."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from PIL import Image

from denserc.config import get_denserc_config
from tests.paths import FIXTURES

RECORDED = FIXTURES / "distillation"


@pytest.fixture(scope="session")
def recordings():
    """Arrays recorded from CLIPSelf and DeCLIP, by file name."""
    return lambda name: np.load(RECORDED / f"{name}.npz")


@pytest.fixture()
def image_folder(tmp_path) -> Path:
    """Ten images of several shapes."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        height, width = int(rng.integers(40, 90)), int(rng.integers(40, 90))
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{index}.png")
    return folder


@pytest.fixture()
def make_cfg(image_folder, tmp_path):
    """A miniature training on random weights: KEY, VALUE, ... change it."""

    def make(*changes) -> CfgNode:
        cfg = get_denserc_config()
        cfg.merge_from_list(
            ["MODEL.DEVICE", "cpu", "MODEL.ENCODER.NAME", "DenseRC-Miniature", "MODEL.ENCODER.RANDOM_INIT", True]
            + ["DISTILL.SOURCES", (f"folder:{image_folder}",), "INPUT.SIZE", 64, "DISTILL.CROP_SIZE", 32]
            + ["DISTILL.FOUNDATION.NAME", "colour_texture_p8", "DISTILL.REGIONS.MAX_SPLIT", 2]
            + ["SOLVER.BETAS", (0.9, 0.98), "SOLVER.EPS", 1e-6, "SOLVER.REFERENCE_BATCH", 16]
            + ["SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 1e-3, "SOLVER.MAX_ITER", 6, "SOLVER.WARMUP_ITERS", 2]
            + ["SOLVER.CHECKPOINT_PERIOD", 3, "DATALOADER.NUM_WORKERS", 0, "SEED", 3]
            + ["OUTPUT_DIR", str(tmp_path / "output"), *changes]
        )
        return cfg

    return make
