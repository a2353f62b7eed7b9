"""Config keys of the encoder and its construction, shared by both projects."""

import logging

from detectron2.config import CfgNode

from ..encoders import build_clip
from ..structures import ConfigurationError
from .checkpoint import DenseModel, load_checkpoint
from .choices import Construction
from .dense import DenseEncoder

logger = logging.getLogger(__name__)


def add_encoder_config(cfg: CfgNode) -> None:
    """Add MODEL.ENCODER and MODEL.CONSTRUCTION with their defaults."""
    cfg.MODEL.ENCODER = CfgNode()
    # A DenseRC checkpoint, by path alone. When given, it says everything, and the other keys are not read.
    cfg.MODEL.ENCODER.CHECKPOINT = ""
    # Otherwise a plain CLIP: open_clip's model name, and weights as a file or one of open_clip's tags.
    cfg.MODEL.ENCODER.NAME = "EVA02-B-16"
    cfg.MODEL.ENCODER.WEIGHTS = ""
    # Random weights on purpose: for trying things out without any weights at hand.
    cfg.MODEL.ENCODER.RANDOM_INIT = False

    cfg.MODEL.CONSTRUCTION = CfgNode()
    # A named construction (denserc.construction.CONSTRUCTIONS), and single choices that replace its own.
    cfg.MODEL.CONSTRUCTION.NAME = "denserc"
    # Empty: as the name says. Otherwise any of values, num_blocks, module, shared_gate, projection,
    # gate_position, final_mlp, for example {"num_blocks": 2}.
    cfg.MODEL.CONSTRUCTION.OVERRIDES = CfgNode(new_allowed=True)


def construction_from_config(cfg: CfgNode) -> Construction:
    """The construction that MODEL.CONSTRUCTION names."""
    overrides = {key.lower(): value for key, value in cfg.MODEL.CONSTRUCTION.OVERRIDES.items()}
    known = Construction().to_dict()
    unknown = overrides.keys() - known.keys()
    if unknown:
        raise ConfigurationError(
            f"MODEL.CONSTRUCTION.OVERRIDES has unknown keys {sorted(unknown)}. Known: {list(known)}."
        )
    return Construction.named(cfg.MODEL.CONSTRUCTION.NAME, **overrides)


def build_dense_model(cfg: CfgNode) -> DenseModel:
    """The dense encoder and text tower that the config names, on the CPU.

    Raises:
        ConfigurationError: neither a checkpoint nor weights nor RANDOM_INIT, or an unknown name.
    """
    settings = cfg.MODEL.ENCODER
    if settings.CHECKPOINT:
        logger.info("Dense encoder from the DenseRC checkpoint %s", settings.CHECKPOINT)
        return load_checkpoint(settings.CHECKPOINT)
    clip = build_clip(settings.NAME, settings.WEIGHTS, random_init=settings.RANDOM_INIT)
    encoder = DenseEncoder(clip.image, construction_from_config(cfg))
    return DenseModel(encoder, clip.text, clip.logit_scale)
