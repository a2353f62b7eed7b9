"""Config keys of the encoder and its construction, shared by both projects."""

import logging

from detectron2.config import CfgNode

from ..encoders import PositionResize, build_clip, has_packaged_weights
from ..structures import Key, add_keys, choose
from .checkpoint import DenseModel, load_checkpoint
from .choices import CONSTRUCTIONS, Construction, Projection
from .dense import DenseEncoder

logger = logging.getLogger(__name__)


KEYS = (
    Key(
        "MODEL.ENCODER.CHECKPOINT",
        "",
        "A DenseRC checkpoint by path. It brings encoder, construction and weights; the other keys are not read.",
    ),
    Key("MODEL.ENCODER.NAME", "EVA02-B-16", "open_clip's model name of a plain CLIP, used without CHECKPOINT."),
    Key(
        "MODEL.ENCODER.WEIGHTS",
        "",
        "A file or one of open_clip's tags. Empty: the miniature's packaged weights, for other encoders random ones, "
        "with a warning and a note in every product.",
    ),
    Key("MODEL.ENCODER.RANDOM_INIT", False, "Random weights on purpose, for the miniature too."),
    Key(
        "MODEL.ENCODER.POSITION_RESIZE",
        "bicubic",
        "Resizing of learned position embeddings: bicubic (CLIPSelf, DeCLIP, F-ViT) or bicubic_antialias (timm).",
        choices=PositionResize,
    ),
    Key(
        "MODEL.ENCODER.POOLED_MAP",
        "raw",
        "Dense map that regions are pooled from, in L_semantics and in region classification: raw (DeCLIP, DenseRC) or "
        "normalized, unit vectors per token (CLIPSelf).",
        choices=("raw", "normalized"),
    ),
    Key(
        "MODEL.CONSTRUCTION.NAME",
        "denserc",
        "A named construction of the dense features.",
        choices=tuple(CONSTRUCTIONS),
    ),
    Key(
        "MODEL.CONSTRUCTION.NUM_BLOCKS",
        None,
        "Number of last blocks whose values are added, instead of the named construction's.",
        kind=int,
        minimum=1,
    ),
    Key(
        "MODEL.CONSTRUCTION.PROJECTION",
        None,
        "Output projection of the values: each block's own, or the last block's for all.",
        kind=str,
        choices=Projection,
    ),
    Key("MODEL.CONSTRUCTION.FINAL_MLP", None, "True to run the last block's MLP (Table 13).", kind=bool),
    Key(
        "INPUT.SIZE",
        640,
        "Side of the square network input, pixels. The detector scales an image so that its longer side has this "
        "length; the distillation resizes both sides, and the foundation model gets the same token grid.",
        minimum=1,
    ),
    Key("TEST.INPUT_SIZE", 0, "Side of the square input at test; 0: INPUT.SIZE.", minimum=0),
)
_REPLACEABLE = ("num_blocks", "projection", "final_mlp")


def add_encoder_config(cfg: CfgNode) -> None:
    """Add MODEL.ENCODER, MODEL.CONSTRUCTION and the side of the network input."""
    add_keys(cfg, KEYS)


def construction_from_config(cfg: CfgNode) -> Construction:
    """The construction that MODEL.CONSTRUCTION names, with the single choices replaced that it gives."""
    given = {field: cfg.MODEL.CONSTRUCTION[field.upper()] for field in _REPLACEABLE}
    replaced = {field: value for field, value in given.items() if value is not None}
    return Construction.named(cfg.MODEL.CONSTRUCTION.NAME, **replaced)


def build_dense_model(cfg: CfgNode) -> DenseModel:
    """The dense encoder and text tower that the config names, on the CPU.

    Raises:
        ConfigurationError: An unknown name or tag, or both WEIGHTS and RANDOM_INIT.
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
