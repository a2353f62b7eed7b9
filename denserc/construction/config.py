"""Config keys of the encoder and its construction, shared by both projects."""

import logging

from detectron2.config import CfgNode

from ..encoders import PositionResize, build_clip, has_packaged_weights
from ..structures import choose
from .checkpoint import DenseModel, load_checkpoint
from .choices import Construction
from .dense import DenseEncoder

logger = logging.getLogger(__name__)


def add_encoder_config(cfg: CfgNode) -> None:
    """Add MODEL.ENCODER and MODEL.CONSTRUCTION with their defaults."""
    cfg.MODEL.ENCODER = CfgNode()
    # A DenseRC checkpoint, by path alone. When given, it says everything, and the other keys are not read.
    cfg.MODEL.ENCODER.CHECKPOINT = ""
    # Otherwise a plain CLIP: open_clip's model name, and weights as a file or one of open_clip's tags. Without weights
    # the miniature takes its packaged ones, and every other encoder random ones, which is said loudly and noted in
    # what is made from them.
    cfg.MODEL.ENCODER.NAME = "EVA02-B-16"
    cfg.MODEL.ENCODER.WEIGHTS = ""
    # Random weights on purpose, for the miniature too.
    cfg.MODEL.ENCODER.RANDOM_INIT = False
    # How learned position embeddings reach other sizes than the trained one: "bicubic" (CLIPSelf, DeCLIP, F-ViT) or
    # "bicubic_antialias" (timm). A checkpoint says its own.
    cfg.MODEL.ENCODER.POSITION_RESIZE = "bicubic"

    cfg.MODEL.CONSTRUCTION = CfgNode()
    # A named construction (denserc.construction.CONSTRUCTIONS), and single choices that replace its own where they are
    # not None: VALUES, NUM_BLOCKS, MODULE, SHARED_GATE, PROJECTION, GATE_POSITION, FINAL_MLP (see `Construction`).
    cfg.MODEL.CONSTRUCTION.NAME = "denserc"
    for field in Construction().to_dict():
        cfg.MODEL.CONSTRUCTION[field.upper()] = None


def construction_from_config(cfg: CfgNode) -> Construction:
    """The construction that MODEL.CONSTRUCTION names, with the single choices replaced that it gives."""
    given = {field: cfg.MODEL.CONSTRUCTION[field.upper()] for field in Construction().to_dict()}
    replaced = {field: value for field, value in given.items() if value is not None}
    return Construction.named(cfg.MODEL.CONSTRUCTION.NAME, **replaced)


def build_dense_model(cfg: CfgNode) -> DenseModel:
    """The dense encoder and text tower that the config names, on the CPU.

    Raises:
        ConfigurationError: an unknown name or tag, or both WEIGHTS and RANDOM_INIT.
    """
    settings = cfg.MODEL.ENCODER
    if settings.CHECKPOINT:
        logger.info("Dense encoder from the DenseRC checkpoint %s", settings.CHECKPOINT)
        return load_checkpoint(settings.CHECKPOINT)
    random = settings.RANDOM_INIT or not (settings.WEIGHTS or has_packaged_weights(settings.NAME))
    resize = choose(PositionResize, settings.POSITION_RESIZE, "MODEL.ENCODER.POSITION_RESIZE")
    clip = build_clip(settings.NAME, settings.WEIGHTS, random_init=random, position_resize=resize)
    encoder = DenseEncoder(clip.image, construction_from_config(cfg))
    origin = "RANDOM" if random else settings.WEIGHTS or "packaged"
    return DenseModel(encoder, clip.text, clip.logit_scale, {"encoder_weights": origin})
