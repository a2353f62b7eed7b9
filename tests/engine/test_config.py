"""SOLVER keys in both trainings."""

import pytest

from denserc.config import get_denserc_config
from denserc.distillation import engine as distillation
from denserc.engine import Precision
from denserc.engine.config import configured_clip_norm, configured_precision, images_per_forward
from denserc.structures import ConfigurationError


@pytest.fixture()
def cfg():
    return get_denserc_config()


def test_precision_is_float32_unless_amp_is_enabled(cfg):
    cfg.SOLVER.AMP.PRECISION = "bf16"
    assert configured_precision(cfg) is Precision.FP32
    cfg.SOLVER.AMP.ENABLED = True
    assert configured_precision(cfg) is Precision.BF16


def test_the_whole_gradient_is_clipped_or_nothing(cfg):
    settings = cfg.SOLVER.CLIP_GRADIENTS
    assert configured_clip_norm(cfg) is None
    settings.ENABLED, settings.CLIP_VALUE = True, 0.5
    assert configured_clip_norm(cfg) == 0.5


@pytest.mark.parametrize(
    ("key", "value"), [("CLIP_TYPE", "norm"), ("CLIP_TYPE", "value"), ("NORM_TYPE", 1.0), ("CLIP_VALUE", 0.0)]
)
def test_other_ways_of_clipping_are_refused(cfg, key, value):
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS[key] = value
    with pytest.raises(ConfigurationError, match=f"{key} '?{value}'?.*set CLIP_TYPE full_model"):
        configured_clip_norm(cfg)


def test_a_batch_is_divided_among_processes_and_forwards(cfg):
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE = 12, 2
    assert images_per_forward(cfg, 3) == 2
    with pytest.raises(ConfigurationError, match="12 cannot be divided among 5 processes times SOLVER.ACCUMULATE = 2"):
        images_per_forward(cfg, 5)


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "along a cosine"),
        ("MODEL.WEIGHTS", "a.pth", "MODEL.ENCODER.CHECKPOINT"),
        ("INPUT.MIN_SIZE_TRAIN", (224,), "INPUT.SIZE"),
    ],
)
def test_the_distillation_refuses_keys_without_effect(cfg, key, value, instead):
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigurationError, match=f"{key} is .*no effect here.*{instead}"):
        distillation.run(cfg)
