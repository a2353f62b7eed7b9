"""The configurations against the published settings."""

import pytest

from denserc.config import read_config
from denserc.engine.config import configured_clip_norm
from tests.paths import CONFIGS

PATCH = {"EVA02-B-16": 16, "ViT-B-16-quickgelu": 16, "EVA02-L-14-336": 14, "ViT-L-14-336-quickgelu": 14}
PUBLISHED = {
    "catseg_vitb16": ("EVA02-B-16", "denserc", 384, [3, 7], "unit"),
    "catseg_vitl14": ("EVA02-L-14-336", "denserc", 336, [7, 15], "unit"),
    "catseg_openai_vitb16": ("ViT-B-16-quickgelu", "catseg", 384, [3, 7], "raw"),
    "catseg_openai_vitl14": ("ViT-L-14-336-quickgelu", "catseg", 336, [7, 15], "raw"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    cfg = read_config(CONFIGS / f"{name}.yaml")
    encoder, construction, side, blocks, features = PUBLISHED[name]
    catseg, solver = cfg.MODEL.CATSEG, cfg.SOLVER
    assert (cfg.MODEL.ENCODER.NAME, cfg.MODEL.CONSTRUCTION.NAME) == (encoder, construction)
    assert (list(catseg.INPUT_SIZE), list(catseg.BLOCKS), catseg.DENSE_FEATURES) == ([side, side], blocks, features)
    assert side // PATCH[encoder] == 24
    assert (catseg.NUM_LAYERS, catseg.NUM_HEADS, catseg.HIDDEN_DIM, catseg.SWIN_WINDOW) == (2, 4, 128, 12)
    assert (catseg.TEXT_DIM, catseg.APPEARANCE_DIM, catseg.CLASS_LIMIT) == (128, 128, 256)
    assert (list(catseg.DECODER_DIMS), list(catseg.GUIDANCE_DIMS), list(catseg.PROJECTED_DIMS)) == (
        [64, 32], [256, 128], [32, 16],
    )  # fmt: skip
    assert (list(catseg.POOLING_TRAIN), list(catseg.POOLING_TEST)) == ([2, 2], [1, 1])
    windows = catseg.WINDOWS
    assert (windows.ENABLED, windows.SIDE, windows.OVERLAP, list(windows.CANVAS)) == (True, 384, 0.333, [640, 640])
    assert (catseg.TRAIN.IMAGE, catseg.TRAIN.TEXT, catseg.TRAIN.LR_FACTOR) == ("qv", "qv", 0.01)
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.BASE_LR) == (4, 80_000, 2e-4)
    assert configured_clip_norm(cfg) == 0.01
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.WARMUP_ITERS) == (1e-4, 0.0, 0)
    assert (solver.LR_SCHEDULER_NAME, solver.REFERENCE_BATCH) == ("WarmupCosineLR", 4)
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == ((384,), 640, 2560)
    assert cfg.INPUT.COLOR_AUG_SSD and cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE == "absolute"
    assert (cfg.MODEL.VOCABULARY.TEMPLATES, cfg.MODEL.VOCABULARY.SYNONYMS) == ("catseg", "first")
    assert cfg.OUTPUT_DIR == f"output/{name}"
