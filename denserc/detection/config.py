"""Configuration keys of F-ViT. Keys of Detectron2 with the same meaning are used and not repeated here.

Read of Detectron2's: all that configs/Base-FViT.yaml sets, DATASETS.TRAIN and .TEST, SOLVER (see engine/config.py),
TEST.EVAL_PERIOD, OUTPUT_DIR. Defaults are those of MMDetection's F-ViT for OV-COCO with ViT-B/16.
"""

from detectron2.config import CfgNode

from ..engine import Precision
from ..structures import Key, add_keys
from .modeling.feature_cache import CachePrecision
from .modeling.heads import NORMS
from .modeling.options import Resampling, Suppression

KEYS = (
    Key(
        "INPUT.SCALE_JITTER",
        [0.1, 2.0],
        "Range of the random scale in training, relative to INPUT.SIZE; a crop of at most INPUT.SIZE follows.",
        above=0,
        lengths=(2,),
        rising=True,
    ),
    Key(
        "INPUT.RESAMPLING",
        "opencv_bilinear",
        "Resizing of images: opencv_bilinear (MMDetection's F-ViT, no antialiasing) or pillow_bilinear (Detectron2).",
        choices=Resampling,
    ),
    Key(
        "TEST.FLIP",
        False,
        "Combine every image with its mirror image: the regions of both are scored in both, then scores, boxes and "
        "masks are averaged before suppression. About twice the time.",
    ),
    Key(
        "TEST.PROPOSALS.FILE",
        "",
        "With --eval-only: write the RPN's best MODEL.RPN.POST_NMS_TOPK_TEST proposals per image of the one set in "
        "DATASETS.TEST to this file instead of evaluating, in COCO's results format (gzipped if it ends in .gz).",
    ),
    Key(
        "MODEL.FVIT.BLOCKS",
        [3, 5, 7, 11],
        "Blocks whose residual stream becomes the maps at strides patch / 4, patch / 2, patch and 2 x patch.",
        minimum=0,
        kind=int,
        lengths=(4,),
        rising=True,
    ),
    Key(
        "MODEL.FVIT.BACKBONE_PRECISION",
        "fp32",
        "Arithmetic of the frozen encoder, at test too; fp16 needs CUDA. Its weights and its maps are float32.",
        choices=Precision,
    ),
    Key(
        "MODEL.FVIT.FINEST_SCALE",
        56.0,
        "Boxes of a side below twice this, pixels, are pooled from the finest map.",
        above=0,
    ),
    Key(
        "MODEL.FVIT.NMS",
        "per_class",
        "Detections that suppress each other: those of one class (per_class) or all (class_agnostic).",
        choices=Suppression,
    ),
    Key(
        "MODEL.FVIT.ONE_LABEL_PER_BOX",
        False,
        "Keep only the best class of a box, not every class above the score threshold.",
    ),
    Key(
        "MODEL.FVIT.CACHE.DIR",
        "",
        "Folder of the frozen encoder's maps of training views, for small data sets with INPUT.FIXED_VIEWS. Runs may "
        "share it. Empty: no cache.",
    ),
    Key("MODEL.FVIT.CACHE.LIMIT_GB", 50.0, "Size of the cache; further maps are computed every time.", above=0),
    Key(
        "MODEL.FVIT.CACHE.PRECISION",
        "fp32",
        "Format of cached maps; fp16 halves the space and rounds to 11 bits.",
        choices=CachePrecision,
    ),
    Key("MODEL.FVIT.RPN.NORM", "", "Normalization in the RPN's head; OV-LVIS: SyncBN.", choices=tuple(NORMS)),
    Key(
        "MODEL.FVIT.ROI.LOW_QUALITY",
        False,
        "A ground-truth box takes its best regions from other boxes, from the positive IoU on (OV-LVIS).",
    ),
    Key(
        "MODEL.FVIT.CLASSIFIER.TEST_TEMPERATURE",
        0.0,
        "Temperature at test in place of the learned one; 0: the learned one. The published transfer uses 50.",
        minimum=0,
    ),
    Key(
        "MODEL.FVIT.CLASSIFIER.BACKGROUND_WEIGHT",
        0.6,
        "Weight of negatives in the classification loss; OV-LVIS: 0.9.",
        minimum=0,
    ),
    Key(
        "MODEL.FVIT.FUSION.TEMPERATURE",
        75.0,
        "Temperature of the frozen encoder's cosines; the published transfer uses 120.",
        above=0,
    ),
    Key(
        "MODEL.FVIT.FUSION.BASE",
        0.1,
        "Exponent of the frozen encoder's score for base classes and background.",
        minimum=0,
        maximum=1,
    ),
    Key(
        "MODEL.FVIT.FUSION.NOVEL",
        0.8,
        "Exponent of the frozen encoder's score for novel classes.",
        minimum=0,
        maximum=1,
    ),
    Key(
        "MODEL.FVIT.FUSION.UNSPLIT",
        0.2,
        "Exponent for all classes where a data set names no novel one (transfer).",
        minimum=0,
        maximum=1,
    ),
    # Detectron2's 1024 would be another width than the published detectors have.
    Key(
        "MODEL.ROI_BOX_HEAD.FC_DIM",
        0,
        "Width of the box head's fully connected layers; 0: that of the image-text space.",
        minimum=0,
    ),
)

_SIDES = "Set INPUT.SIZE (and TEST.INPUT_SIZE), the side of the square input."
_ADAMW = "The optimizer is AdamW: set SOLVER.BETAS and SOLVER.WEIGHT_DECAY."
IGNORED = {
    "MODEL.ROI_HEADS.NUM_CLASSES": "The vocabulary of the data set, or set_vocabulary, gives the classes.",
    "MODEL.BACKBONE.FREEZE_AT": "The encoder is always frozen.",
    "MODEL.RPN.IN_FEATURES": "Set MODEL.FVIT.BLOCKS.",
    "MODEL.ROI_HEADS.IN_FEATURES": "Set MODEL.FVIT.BLOCKS.",
    "MODEL.ANCHOR_GENERATOR.SIZES": "The side of an anchor is 8 strides; register a subclass of AnchorGrid.",
    "MODEL.LOAD_PROPOSALS": "The RPN proposes regions.",
    "INPUT.MIN_SIZE_TRAIN": _SIDES,
    "INPUT.MAX_SIZE_TRAIN": _SIDES,
    "INPUT.MIN_SIZE_TEST": _SIDES,
    "INPUT.MAX_SIZE_TEST": _SIDES,
    "INPUT.CROP.ENABLED": "Set INPUT.SCALE_JITTER; larger images are cropped to INPUT.SIZE.",
    "TEST.AUG.ENABLED": "Set TEST.FLIP.",
    "SOLVER.MOMENTUM": _ADAMW,
    "SOLVER.NESTEROV": _ADAMW,
    "SOLVER.WEIGHT_DECAY_NORM": _ADAMW,
    "SOLVER.WEIGHT_DECAY_BIAS": _ADAMW,
    "SOLVER.BIAS_LR_FACTOR": _ADAMW,
}
"""Keys of Detectron2 that F-ViT does not read, and what to do instead."""


def add_detection_config(cfg: CfgNode) -> None:
    """Add MODEL.FVIT and the detector's keys of INPUT and TEST."""
    add_keys(cfg, KEYS)
