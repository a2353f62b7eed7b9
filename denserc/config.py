"""One call that makes a Detectron2 config know every key of DenseRC."""

from detectron2.config import CfgNode, get_cfg

from .construction import add_encoder_config
from .data.config import add_data_config
from .detection.config import add_detection_config
from .distillation.config import add_distillation_config
from .openvocab.config import add_openvocab_config


def add_denserc_config(cfg: CfgNode) -> None:
    """Add the keys of the data, the encoder, the distillation stage and the detector, with their defaults."""
    add_data_config(cfg)
    add_encoder_config(cfg)
    add_distillation_config(cfg)
    add_openvocab_config(cfg)
    add_detection_config(cfg)


def get_denserc_config() -> CfgNode:
    """Detectron2's defaults with DenseRC's keys added."""
    cfg = get_cfg()
    add_denserc_config(cfg)
    return cfg
