"""Configuration keys of CAT-Seg and of training-free segmentation. A key of Detectron2 that means the same is used.

Read of Detectron2's: INPUT.MIN_SIZE_TRAIN, .MAX_SIZE_TRAIN, .MIN_SIZE_TRAIN_SAMPLING, .CROP, .RANDOM_FLIP,
.MIN_SIZE_TEST, .MAX_SIZE_TEST, .FORMAT; MODEL.PIXEL_MEAN, .PIXEL_STD; SOLVER.WEIGHT_DECAY_NORM; and those of the shared
engine. Defaults are CAT-Seg's for ViT-B/16.
"""

from ..structures import Key
from .modeling.options import (
    Background,
    ClassAttentionKind,
    DenseFeatures,
    IgnoredPixels,
    Output,
    TowerTraining,
    WholePicture,
)
from .protocols import PROTOCOLS

KEYS = (
    Key("INPUT.COLOR_AUG_SSD", False, "Random brightness, contrast, saturation and hue, as in SSD (CAT-Seg)."),
    Key(
        "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA",
        1.0,
        "Largest share of one class in a crop of CAT-Seg's training, tried ten times; 1.0: any crop.",
        above=0,
        maximum=1,
    ),
    Key(
        "MODEL.CATSEG.INPUT_SIZE",
        [384, 384],
        "(h, w) of the network input, multiples of the patch size; every view is squashed to it.",
        minimum=1,
        kind=int,
        lengths=(2,),
    ),
    Key(
        "MODEL.CATSEG.BLOCKS",
        [3, 7],
        "Blocks of the tower whose residual maps guide the decoders, one each; L/14: 7, 15.",
        minimum=0,
        kind=int,
    ),
    Key(
        "MODEL.CATSEG.DENSE_FEATURES",
        "unit",
        "Length of the dense features that the appearance guidance is made of: unit (DeCLIP) or raw (CAT-Seg).",
        choices=DenseFeatures,
    ),
    Key("MODEL.CATSEG.HIDDEN_DIM", 128, "Channels of the aggregator.", minimum=1),
    Key("MODEL.CATSEG.APPEARANCE_DIM", 128, "Channels of the projected guidance from dense features.", minimum=1),
    Key("MODEL.CATSEG.TEXT_DIM", 128, "Channels of the projected guidance from text.", minimum=1),
    Key("MODEL.CATSEG.NUM_LAYERS", 2, "Layers of the aggregator.", minimum=1),
    Key("MODEL.CATSEG.NUM_HEADS", 4, "Attention heads of the aggregator.", minimum=1),
    Key("MODEL.CATSEG.SWIN_WINDOW", 12, "Side of a Swin window, positions of the feature grid.", minimum=1),
    Key(
        "MODEL.CATSEG.ATTENTION",
        "linear",
        "Attention over classes in the aggregator: linear (CAT-Seg) or full.",
        choices=ClassAttentionKind,
    ),
    Key(
        "MODEL.CATSEG.POOLING_TRAIN",
        [2, 2],
        "(h, w) of the pooling before the attention over classes.",
        minimum=1,
        kind=int,
        lengths=(2,),
    ),
    Key("MODEL.CATSEG.POOLING_TEST", [1, 1], "The same outside of training.", minimum=1, kind=int, lengths=(2,)),
    Key(
        "MODEL.CATSEG.CLASS_LIMIT",
        256,
        "Classes that the layers take: of more, each view keeps its best by cosine; fewer are filled up with learned "
        "padding. 0: neither. CAT-Seg calls it pad_len and has it in no config.",
        minimum=0,
    ),
    Key(
        "MODEL.CATSEG.DECODER_DIMS",
        [64, 32],
        "Output channels of the decoders, each of which doubles the size.",
        minimum=1,
        kind=int,
    ),
    Key(
        "MODEL.CATSEG.GUIDANCE_DIMS",
        [256, 128],
        "Channels of the decoders' guidance after upsampling.",
        minimum=1,
        kind=int,
    ),
    Key(
        "MODEL.CATSEG.PROJECTED_DIMS",
        [32, 16],
        "Channels of the decoders' guidance after projection.",
        minimum=1,
        kind=int,
    ),
    Key(
        "MODEL.CATSEG.CHUNK",
        0,
        "Class maps computed at once at test, and in training with checkpointing: memory and time, not results; 0: 16 "
        "on a CPU, 128 elsewhere.",
        minimum=0,
    ),
    Key(
        "MODEL.CATSEG.GRADIENT_CHECKPOINTING",
        "none",
        "Recomputation in the backward pass: none, or full (blocks of both towers, and the aggregator by CHUNK class "
        "maps). Losses are equal, gradients up to rounding.",
        choices=("none", "full"),
    ),
    Key(
        "MODEL.CATSEG.TRAIN.IMAGE",
        "qv",
        "Weights of the image tower's attention that learn: none, qv (CAT-Seg) or qkv.",
        choices=TowerTraining,
    ),
    Key(
        "MODEL.CATSEG.TRAIN.TEXT",
        "qv",
        "The same in the text tower: none, qv (CAT-Seg) or qkv (DeCLIP's branch).",
        choices=TowerTraining,
    ),
    Key("MODEL.CATSEG.TRAIN.LR_FACTOR", 0.01, "Factor of SOLVER.BASE_LR for these.", minimum=0),
    Key(
        "MODEL.CATSEG.IGNORED",
        "negative",
        "Pixels without a label in the loss: negative for every class (CAT-Seg) or excluded.",
        choices=IgnoredPixels,
    ),
    Key(
        "MODEL.CATSEG.WINDOWS.ENABLED",
        True,
        "At test, windows of a canvas averaged with the whole picture; otherwise only the whole picture.",
    ),
    Key("MODEL.CATSEG.WINDOWS.SIDE", 384, "Side of a window, pixels of the canvas.", minimum=1),
    Key("MODEL.CATSEG.WINDOWS.OVERLAP", 0.333, "Share of a window that the next one covers.", minimum=0, below=1),
    Key(
        "MODEL.CATSEG.WINDOWS.CANVAS",
        [640, 640],
        "(h, w) that pictures are squashed to, whatever their aspect; []: their own size.",
        minimum=1,
        kind=int,
        lengths=(0, 2),
    ),
    Key(
        "MODEL.CATSEG.WHOLE_PICTURE",
        "exact",
        "Without windows: exact, or padded as in CAT-Seg (up to 31 pixels of shift).",
        choices=WholePicture,
    ),
    Key(
        "MODEL.CATSEG.OUTPUT",
        "scores",
        'Content of "sem_seg": scores (T, H, W), or labels (H, W) for large vocabularies.',
        choices=Output,
    ),
    Key(
        "MODEL.CATSEG.BACKGROUND",
        "none",
        'Label T for "none of the classes": none (never), by the prompt "background", or below a threshold.',
        choices=Background,
    ),
    Key(
        "MODEL.CATSEG.BACKGROUND_THRESHOLD", 0.0, "Probability below which a pixel is background.", minimum=0, maximum=1
    ),
    Key(
        "MODEL.DENSE_SEGMENTER.PROTOCOL",
        "declip",
        "Protocol of training-free segmentation, with its constants on the eight benchmarks.",
        choices=tuple(PROTOCOLS),
    ),
    Key(
        "MODEL.DENSE_SEGMENTER.SHORT_SIDE",
        0,
        "Short side of the picture in place of the protocol's, on every set; 0: the protocol's.",
        minimum=0,
    ),
    Key(
        "MODEL.DENSE_SEGMENTER.THRESHOLD",
        -1.0,
        "Probability below which a pixel is background, on sets that have one; negative: the protocol's.",
        maximum=1,
    ),
    Key("MODEL.DENSE_SEGMENTER.WINDOWS_AT_ONCE", 8, "Windows in one pass of the encoder.", minimum=1),
    Key(
        "MODEL.DENSE_SEGMENTER.PHRASES_AT_ONCE",
        32,
        "Score maps of the result's size that are held at once: memory, not results.",
        minimum=1,
    ),
)
