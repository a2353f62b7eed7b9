"""Configuration keys of the distillation; defaults are the paper's settings.

Read besides these: MODEL.ENCODER and MODEL.CONSTRUCTION, INPUT.SIZE, SOLVER (see engine/config.py), DATASETS.TRAIN and
.TEST, DATALOADER.NUM_WORKERS, TEST.EVAL_PERIOD, MODEL.DEVICE, OUTPUT_DIR, SEED.
"""

from ..construction import GradientCheckpointing
from ..data.images.resizing import BicubicKernel
from ..structures import Key
from .data.crops import CropResize
from .data.regions import GridRule, WithoutProposals
from .data.views import ViewPlace
from .losses import CoherenceFeatures, CoherenceReading
from .optim import Trainable

KEYS = (
    Key(
        "DISTILL.SOURCES",
        (),
        'Images besides those of DATASETS.TRAIN: "folder:PATH", "dataset:NAME", "coco_json:FILE@IMAGE_ROOT" (COCO or '
        'LVIS), "voc:VOCdevkit/VOC2012", "ade20k:ADEChallengeData2016". A file named twice is used once.',
        kind=str,
    ),
    Key("DISTILL.CROP_SIZE", 0, "Side of the teacher's crops, pixels; 0: the encoder's native size.", minimum=0),
    Key(
        "DISTILL.CROP_RESIZE",
        "square",
        "Resizing of crops: square (both sides, the paper) or letterbox (longer side, zeros around: CLIPSelf, DeCLIP).",
        choices=CropResize,
    ),
    Key(
        "DISTILL.RESAMPLING",
        "pillow",
        "Bicubic antialiased resizing: pillow (CLIPSelf's and DeCLIP's pixels) or torchvision_uint8, much faster; 0.4% "
        "of the values differ by 1 of 255 (docs/SPEED.md).",
        choices=BicubicKernel,
    ),
    Key(
        "DISTILL.VIEWS",
        "loader",
        "Place where views are made: loader (worker processes) or device (MODEL.DEVICE, from one upload of the image, "
        "Pillow's pixels; docs/SPEED.md).",
        choices=ViewPlace,
    ),
    Key("DISTILL.CROP_SCALE", 1.0, "Growth of a region about its center before the teacher's crop.", above=0),
    Key(
        "DISTILL.TEACHER.FINAL_MLP",
        True,
        "Last block's MLP on the way to the teacher's class token (Table 13); the student's is "
        "MODEL.CONSTRUCTION.FINAL_MLP.",
    ),
    Key(
        "DISTILL.TEACHER.CROPS_PER_FORWARD",
        0,
        "Crops per forward pass of the teacher, for bounded memory; 0: all of a batch.",
        minimum=0,
    ),
    Key("DISTILL.REGIONS.MAX_SPLIT", 6, "Largest number of rows and of columns of a grid of regions.", minimum=1),
    Key(
        "DISTILL.REGIONS.GRID_RULE",
        "uniform",
        "Grids: uniform (rows and columns independent, the paper) or clipself (columns half to twice the rows).",
        choices=GridRule,
    ),
    Key("DISTILL.REGIONS.MAX_REGIONS", 20, "Most regions per image, chosen at random; 0: all.", minimum=0),
    Key(
        "DISTILL.REGIONS.PROPOSALS",
        (),
        "Files of region proposals in COCO's results format, plain or .gz, used instead of grids: those that "
        "TEST.PROPOSALS.FILE writes, for example.",
        kind=str,
    ),
    Key(
        "DISTILL.REGIONS.TOP_K",
        0,
        "Best proposals per image and file among which regions are drawn; 0: all.",
        minimum=0,
    ),
    Key(
        "DISTILL.REGIONS.WITHOUT_PROPOSALS",
        "grid",
        "Images without proposals get a grid or are dropped.",
        choices=WithoutProposals,
    ),
    Key("DISTILL.SEMANTICS.WEIGHT", 1.0, "Weight of L_semantics; 0 switches it off.", minimum=0),
    Key(
        "DISTILL.COHERENCE.WEIGHT",
        0.025,
        "Weight lambda of L_coherence; 0 switches it off, and no foundation model is built.",
        minimum=0,
    ),
    Key(
        "DISTILL.COHERENCE.READING",
        "mse",
        "Reading of Eq. 20: mse = ||G_s - G_t||_F^2 / N^2, norm = ||G_s - G_t||_F / N^2, row_norm = mean 2-norm of the "
        "rows (DeCLIP).",
        choices=CoherenceReading,
    ),
    Key(
        "DISTILL.COHERENCE.FEATURES",
        "dense",
        "Features that correlate: the student's dense ones, or context, the q (k, v) of its last attention (DeCLIP).",
        choices=CoherenceFeatures,
    ),
    Key(
        "DISTILL.FOUNDATION.NAME",
        "dinov2_vitb14",
        "Foundation model: dinov2_vits14, dinov2_vitb14, dinov2_vitl14, ..., or colour_texture_p<patch size>.",
    ),
    Key(
        "DISTILL.FOUNDATION.WEIGHTS",
        "",
        'A file, or "timm" for timm\'s own download. Empty: random weights, with a warning.',
    ),
    Key(
        "DISTILL.TRAINABLE",
        "tower",
        "Trained parts: tower (image tower and gates) or blocks (transformer blocks and gates: CLIPSelf, DeCLIP).",
        choices=Trainable,
    ),
    Key("DISTILL.GATE_RATE", 1.0, "Learning rate of the gates' W_H as a multiple of the tower's.", above=0),
    Key(
        "DISTILL.GRADIENT_CHECKPOINTING",
        "auto",
        "Recomputation in the student's backward pass: none, selective (half the memory, a few percent of the time), "
        "full (a tenth, one more forward), auto (the first that fits). Results are bitwise identical.",
        choices=GradientCheckpointing,
    ),
    Key(
        "DISTILL.EXPORT_BLEND",
        1.0,
        "Weight of the student in the exported encoder, the rest is the teacher's: 1 = only the student, 0.7 = "
        "CLIPSelf and DeCLIP. The resume state never holds the blend.",
        minimum=0,
        maximum=1,
    ),
    Key("DISTILL.KEEP_STATES", 1, "Number of resume states that are kept.", minimum=1),
    Key("DISTILL.LOG_PERIOD", 20, "Steps between two lines of log, TensorBoard and metrics.json.", minimum=1),
)

_SCHEDULE = "The rate warms up over SOLVER.WARMUP_ITERS and falls along a cosine to 0 at SOLVER.MAX_ITER."
_ADAMW = "The optimizer is AdamW: set SOLVER.BETAS and SOLVER.WEIGHT_DECAY."
_SIDES = "Set INPUT.SIZE, the side of the square input."
IGNORED = {
    "SOLVER.LR_SCHEDULER_NAME": _SCHEDULE,
    "SOLVER.MOMENTUM": _ADAMW,
    "SOLVER.NESTEROV": _ADAMW,
    "SOLVER.WEIGHT_DECAY_NORM": _ADAMW,
    "SOLVER.WEIGHT_DECAY_BIAS": _ADAMW,
    "SOLVER.BIAS_LR_FACTOR": _ADAMW,
    "MODEL.WEIGHTS": "Set MODEL.ENCODER.CHECKPOINT or MODEL.ENCODER.WEIGHTS.",
    "MODEL.PIXEL_MEAN": "The pixel statistics are the encoder's own.",
    "MODEL.PIXEL_STD": "The pixel statistics are the encoder's own.",
    "INPUT.MIN_SIZE_TRAIN": _SIDES,
    "INPUT.MAX_SIZE_TRAIN": _SIDES,
    "INPUT.MIN_SIZE_TEST": _SIDES,
    "INPUT.MAX_SIZE_TEST": _SIDES,
}
"""Keys of Detectron2 that the distillation does not read, and what to do instead."""
