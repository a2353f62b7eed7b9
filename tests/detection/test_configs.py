"""The configurations of the paper's tables have the published ones' settings."""

import pytest

from denserc.config import read_config
from tests.paths import CONFIGS

B16, L14 = ("EVA02-B-16", [3, 5, 7, 11]), ("EVA02-L-14-336", [6, 10, 14, 23])
COCO = {"images": 107_761, "epochs": 3, "background": 0.6, "score": 0.01, "nms": 0.4, "limit": 100, "masks": False}
LVIS = {"images": 100_170, "epochs": 48, "background": 0.9, "score": 1e-4, "nms": 0.5, "limit": 300, "masks": True}
PUBLISHED = {
    "ovcoco_vitb16": (B16, COCO, 640, (75.0, 0.1, 0.8)),
    "ovcoco_vitl14": (L14, COCO, 896, (75.0, 0.1, 0.8)),
    "ovlvis_vitb16": (B16, LVIS, 1024, (50.0, 0.1, 0.6)),
    "ovlvis_vitl14": (L14, LVIS, 896, (50.0, 0.1, 0.4)),
}


def load(name):
    return read_config(CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    cfg, ((encoder, blocks), data, size, (temperature, base, novel)) = load(name), PUBLISHED[name]
    fvit, roi = cfg.MODEL.FVIT, cfg.MODEL.ROI_HEADS
    assert (cfg.MODEL.ENCODER.NAME, list(fvit.BLOCKS), cfg.INPUT.SIZE) == (encoder, blocks, size)
    assert (fvit.FUSION.TEMPERATURE, fvit.FUSION.BASE, fvit.FUSION.NOVEL) == (temperature, base, novel)
    assert (fvit.CLASSIFIER.BACKGROUND_WEIGHT, cfg.MODEL.MASK_ON) == (data["background"], data["masks"])
    assert (roi.SCORE_THRESH_TEST, roi.NMS_THRESH_TEST) == (data["score"], data["nms"])
    assert cfg.TEST.DETECTIONS_PER_IMAGE == data["limit"]
    lvis = data is LVIS
    assert (fvit.RPN.NORM, fvit.ROI.LOW_QUALITY) == (("SyncBN", True) if lvis else ("", False))
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS) == (64, 1e-4, 250)
    assert cfg.OUTPUT_DIR == f"output/{name}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_schedule_is_the_epochs_arithmetic(name):
    cfg, (_, data, _, _) = load(name), PUBLISHED[name]
    an_epoch = data["images"] / cfg.SOLVER.IMS_PER_BATCH
    assert abs(cfg.SOLVER.MAX_ITER - data["epochs"] * an_epoch) <= data["epochs"]
    steps = [32 * an_epoch, 44 * an_epoch] if data is LVIS else []
    assert list(cfg.SOLVER.STEPS) == pytest.approx(steps, abs=1)


TRANSFER = {"coco": 0.2, "objects365": 0.3, "objects365v2": 0.3, "voc": 0.3}


@pytest.mark.parametrize("data, exponent", TRANSFER.items())
def test_transfer_settings(data, exponent):
    cfg = load(f"transfer_{data}")
    fvit = cfg.MODEL.FVIT
    assert (fvit.CLASSIFIER.TEST_TEMPERATURE, fvit.FUSION.TEMPERATURE, fvit.FUSION.UNSPLIT) == (50.0, 120.0, exponent)
    assert (cfg.INPUT.SIZE, cfg.MODEL.MASK_ON, len(cfg.DATASETS.TRAIN), len(cfg.DATASETS.TEST)) == (896, False, 0, 1)


def test_every_configuration_is_in_the_table():
    text = (CONFIGS / "README.md").read_text()
    for path in CONFIGS.glob("*.yaml"):
        assert f"`{path.name}`" in text, path.name
