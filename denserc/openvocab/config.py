"""Configuration keys that every open-vocabulary model shares."""

from detectron2.config import CfgNode

from ..data.vocabulary.prompts import OPENAI, TEMPLATE_SETS
from ..engine.config import add_solver_config
from ..structures import Key, add_keys
from .vocabulary import Synonyms

KEYS = (
    Key(
        "INPUT.FIXED_VIEWS",
        0,
        "0: every visit of an image draws scale, crop and flip anew. K: each image has K views, drawn once by SEED and "
        "visited in turn; the encoder then receives one image at a time, so its maps of a view never change.",
        minimum=0,
    ),
    Key(
        "TEST.IMS_PER_PROCESS",
        1,
        "Images per forward pass of a process at test. A detector pads them to the largest of the batch.",
        minimum=1,
    ),
    Key(
        "TEST.RESUME_PREDICTIONS",
        False,
        "With --eval-only: continue an interrupted evaluation after the images whose predictions are on disk. Refused "
        "where other weights, another vocabulary or other settings made them.",
    ),
    Key(
        "TEST.BEST",
        "auto",
        'Metric that decides OUTPUT_DIR/model_best.pth at every evaluation, as "ov_coco/AP50_novel" of the first set '
        'in DATASETS.TEST. "auto": the first of the architecture\'s `best_metrics`; "": no best checkpoint.',
    ),
    Key(
        "MODEL.VOCABULARY.TEMPLATES",
        "vild",
        "Prompt templates of the class names, in training and evaluation.",
        choices=(*TEMPLATE_SETS, OPENAI),
    ),
    Key(
        "MODEL.VOCABULARY.SYNONYMS",
        "whole",
        'Reading of a name such as "couch, sofa": one phrase (whole), or synonyms of which first or mean is used.',
        choices=Synonyms,
    ),
    Key("MODEL.VOCABULARY.EMBEDDINGS", "", "File of text embeddings to read names from instead of embedding them."),
    Key("MODEL.VOCABULARY.CACHE_DIR", "", "Folder of cached text embeddings; empty: OUTPUT_DIR/text_embeddings."),
)


def add_openvocab_config(cfg: CfgNode) -> None:
    """Add SOLVER, MODEL.VOCABULARY, INPUT.FIXED_VIEWS and keys of TEST."""
    add_solver_config(cfg)
    add_keys(cfg, KEYS)
