"""The published transfer's settings, and that each config is evaluated on a set that is registered."""

import pytest
from detectron2.data import DatasetCatalog

from denserc.config import read_config
from denserc.data.datasets.builtin import register_all
from tests.paths import CONFIGS

EXPONENT = {"coco": 0.2, "objects365": 0.3, "objects365v2": 0.3, "voc": 0.3}


@pytest.mark.parametrize("name", EXPONENT)
def test_transfer_has_the_published_settings(name, tmp_path):
    register_all(tmp_path)
    cfg = read_config(CONFIGS / f"transfer_{name}.yaml")
    cfg.defrost()
    fvit = cfg.MODEL.FVIT
    assert (fvit.CLASSIFIER.TEST_TEMPERATURE, fvit.FUSION.TEMPERATURE, fvit.FUSION.UNSPLIT) == (50, 120, EXPONENT[name])
    assert cfg.INPUT.SIZE == 896 and not cfg.MODEL.MASK_ON and fvit.BLOCKS == [6, 10, 14, 23]
    assert cfg.DATASETS.TRAIN == () and set(cfg.DATASETS.TEST) <= set(DatasetCatalog.list())


def test_there_are_no_others():
    assert {path.stem for path in CONFIGS.glob("transfer_*.yaml")} == {f"transfer_{name}" for name in EXPONENT}
