"""Configuration keys of LLaVA. A key of Detectron2 that means the same is used.

Read of Detectron2's and of the shared ones: MODEL.WEIGHTS (folder of the LLaVA to start from), MODEL.DEVICE,
MODEL.ENCODER.CHECKPOINT; SOLVER.BASE_LR, .WEIGHT_DECAY, .BETAS, .EPS, .IMS_PER_BATCH, .ACCUMULATE, .MAX_ITER,
.WARMUP_ITERS, .CHECKPOINT_PERIOD, .AMP, .CLIP_GRADIENTS; DATALOADER.NUM_WORKERS; OUTPUT_DIR and SEED. Defaults are
those of LLaVA-1.5's stage 2.
"""

from ..structures import Key
from .options import Aspect, LossAverage, TrainedParts
from .templates import TEMPLATES

KEYS = (
    Key(
        "MODEL.LLAVA.LANGUAGE_MODEL",
        "",
        "Language model of a new LLaVA over MODEL.ENCODER.CHECKPOINT: a folder or a name of the Hugging Face Hub. Read "
        "only without MODEL.WEIGHTS.",
    ),
    Key(
        "MODEL.LLAVA.FEATURES",
        "penultimate",
        "Tokens that enter the projector of a new LLaVA: penultimate (LLaVA's choice of layer), dense or joined.",
        choices=("penultimate", "dense", "joined"),
    ),
    Key(
        "MODEL.LLAVA.TRAIN",
        "projector_and_language_model",
        "Parts that learn: projector (stage 1), projector_and_language_model (stage 2) or projector_and_lora.",
        choices=TrainedParts,
    ),
    Key(
        "MODEL.LLAVA.LLAMA",
        (192, 4, 6, 640),
        "Sizes of a llama that is trained from nothing (miniature): channels, layers, heads, channels of the MLPs.",
        minimum=1,
        kind=int,
        lengths=(4,),
    ),
    Key("MODEL.LLAVA.LORA.RANK", 128, "Rank of the adapters of projector_and_lora.", minimum=1),
    Key("MODEL.LLAVA.LORA.ALPHA", 256, "Scale of the adapters, times RANK.", minimum=1),
    Key("MODEL.LLAVA.LORA.DROPOUT", 0.05, "Dropout before the adapters.", minimum=0, below=1),
    Key("MODEL.LLAVA.LORA.PROJECTOR_LR", 2e-5, "Learning rate of the projector beside adapters.", minimum=0),
    Key("LLAVA.DATA.FILES", (), "Training files in LLaVA's JSON format, read one after the other.", kind=str),
    Key("LLAVA.DATA.IMAGES", "", 'Folder that the files\' "image" is relative to.'),
    Key(
        "LLAVA.TEMPLATE",
        "vicuna_v1",
        "Text around pictures, questions and answers: plain (stage 1), vicuna_v1, or that without its system text.",
        choices=tuple(TEMPLATES),
    ),
    Key(
        "LLAVA.ASPECT",
        "pad",
        "Square of a training picture: pad with the mean color (stage 2), or crop the center (stage 1).",
        choices=Aspect,
    ),
    Key(
        "LLAVA.MAX_LENGTH",
        2048,
        "Tokens per sequence, those of the picture included; longer ones are cut and counted in the log.",
        minimum=2,
    ),
    Key("LLAVA.EPOCHS", 1.0, "Passes over the data; 0: SOLVER.MAX_ITER steps.", minimum=0),
    Key("LLAVA.WARMUP_RATIO", 0.03, "Share of the steps that warm up; 0: SOLVER.WARMUP_ITERS.", minimum=0, below=1),
    Key(
        "LLAVA.GROUP_BY_MODALITY_LENGTH",
        True,
        "Batches of similar length, with pictures or without, as in LLaVA's stage 2; otherwise in random order.",
    ),
    Key("LLAVA.GRADIENT_CHECKPOINTING", True, "Recompute the language model's layers in the backward pass."),
    Key(
        "LLAVA.LOSS_AVERAGE",
        "forward",
        "Tokens of a step weigh the same within a forward pass (forward: LLaVA) or within the step (tokens).",
        choices=LossAverage,
    ),
    Key(
        "LLAVA.TEST.QUESTIONS", (), "Question files that are answered after the training and by --eval-only.", kind=str
    ),
    Key(
        "LLAVA.TEST.IMAGES",
        (),
        'Folder of the pictures of each question file, that its "image" is relative to.',
        kind=str,
    ),
    Key(
        "LLAVA.TEST.BENCHMARKS",
        (),
        "Scoring of each answer file: pope, gqa, textvqa, mme; empty: none is scored.",
        kind=str,
    ),
    Key("LLAVA.TEST.ANNOTATIONS", (), "The benchmark's own file or folder for each of BENCHMARKS.", kind=str),
    Key("LLAVA.TEST.MAX_NEW_TOKENS", 128, "Longest answer in tokens; LLaVA's benchmarks use 128.", minimum=1),
    Key("LLAVA.LOG_PERIOD", 1, "Steps between two entries of log, TensorBoard and metrics.json.", minimum=1),
)

_RECIPE = "The rate warms up over LLAVA.WARMUP_RATIO and falls along a cosine to 0."
_ADAMW = "The optimizer is AdamW: set SOLVER.BETAS and SOLVER.WEIGHT_DECAY."
_FILES = "Set LLAVA.DATA.FILES and LLAVA.DATA.IMAGES."
_SIZE = "The size of the input and the pixel statistics are the vision tower's own."
IGNORED = {
    "SOLVER.LR_SCHEDULER_NAME": _RECIPE,
    "SOLVER.STEPS": _RECIPE,
    "SOLVER.MOMENTUM": _ADAMW,
    "SOLVER.NESTEROV": _ADAMW,
    "SOLVER.WEIGHT_DECAY_NORM": _ADAMW,
    "SOLVER.WEIGHT_DECAY_BIAS": _ADAMW,
    "SOLVER.BIAS_LR_FACTOR": _ADAMW,
    "DATASETS.TRAIN": _FILES,
    "MODEL.PIXEL_MEAN": _SIZE,
    "MODEL.PIXEL_STD": _SIZE,
    "INPUT.MIN_SIZE_TRAIN": _SIZE,
    "INPUT.MAX_SIZE_TRAIN": _SIZE,
}
"""Keys of Detectron2 that the training does not read, and what to do instead."""
