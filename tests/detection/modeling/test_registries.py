"""Registry names in a configuration take effect, or are refused with the legal names."""

import pytest
from detectron2.modeling import RPN_HEAD_REGISTRY, build_model

from denserc.detection import engine
from denserc.detection.config import IGNORED
from denserc.detection.modeling.rpn import RPNHead
from denserc.openvocab.engine import build
from denserc.structures import ConfigurationError

LEGAL = {
    "BACKBONE__NAME": "build_fvit_backbone",
    "ANCHOR_GENERATOR__NAME": "AnchorGrid",
    "RPN__HEAD_NAME": "RPNHead",
    "PROPOSAL_GENERATOR__NAME": "FViTRPN",
    "ROI_HEADS__NAME": "FViTROIHeads",
    "ROI_BOX_HEAD__NAME": "BoxHead",
    "ROI_MASK_HEAD__NAME": "MaskHead",
}
DETECTRON2S = {
    "BACKBONE__NAME": "build_resnet_backbone",
    "ANCHOR_GENERATOR__NAME": "DefaultAnchorGenerator",
    "RPN__HEAD_NAME": "StandardRPNHead",
    "PROPOSAL_GENERATOR__NAME": "RPN",
    "ROI_HEADS__NAME": "StandardROIHeads",
    "ROI_BOX_HEAD__NAME": "FastRCNNConvFCHead",
    "ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead",
}


@pytest.mark.parametrize("given", ["nonsense", DETECTRON2S])
@pytest.mark.parametrize("key", LEGAL)
def test_a_name_that_does_not_fit_is_refused(config, key, given):
    value = given if isinstance(given, str) else given[key]
    name = f"MODEL.{key.replace('__', '.')}"
    with pytest.raises(ConfigurationError, match=f"{name} is '{value}'; legal (is|are) .*'{LEGAL[key]}'"):
        build_model(config(MODEL__MASK_ON=True, **{f"MODEL__{key}": value}))


@pytest.mark.parametrize("name", ["nonsense", "GeneralizedRCNN"])
def test_the_architecture_is_refused_if_it_is_none_of_ours(config, name):
    with pytest.raises(ConfigurationError, match=f"MODEL.META_ARCHITECTURE is '{name}'; legal are .*'FViT'"):
        build(config(MODEL__META_ARCHITECTURE=name))


def test_a_registered_part_is_built(config):
    class OwnHead(RPNHead):
        pass

    RPN_HEAD_REGISTRY.register(OwnHead)
    try:
        assert type(build_model(config(MODEL__RPN__HEAD_NAME="OwnHead")).proposal_generator.head) is OwnHead
    finally:
        del RPN_HEAD_REGISTRY._obj_map["OwnHead"]


CHANGED = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "INPUT.MIN_SIZE_TRAIN": (320,),
    "INPUT.MAX_SIZE_TEST": 320,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16]],
    "SOLVER.MOMENTUM": 0.5,
    "TEST.AUG.ENABLED": True,
}


@pytest.mark.parametrize("key", CHANGED)
def test_a_key_without_effect_is_refused(config, key):
    with pytest.raises(ConfigurationError, match=f"{key} is .*no effect here. {IGNORED[key][:12]}"):
        engine.run(config(**{key.replace(".", "__"): CHANGED[key]}))
