"""Legal words of options, written out: the registries that define them import torch. A test compares the two."""

ABLATION_TABLES = ("11", "12", "13", "construction", "gates")
DOWNSTREAM_MEASURES = ("segmentation", "dense_segmentation", "detection")
UNGATED_CONSTRUCTIONS = (
    "denserc_none",
    "denserc_qk",
    "denserc_qq",
    "clipself",
    "catseg",
    "declip",
    "declip_kk",
    "declip_vv",
    "declip_csa",
    "declip_all",
    "last_block_values",
)
CONSTRUCTIONS = ("denserc", "denserc_per_layer", *UNGATED_CONSTRUCTIONS)
POSITION_RESIZE = ("bicubic", "bicubic_antialias")
LLAVA_BENCHMARKS = ("pope", "gqa", "textvqa", "mme")
LLAVA_DTYPES = ("auto", "float32", "bfloat16", "float16")
LLAVA_TEMPLATES = ("vicuna_v1", "vicuna_v1_without_system")
STORED_PRECISIONS = ("float16", "bfloat16", "float32")
TEMPLATES = ("catseg", "plain", "vild")
VISION_FEATURES = ("penultimate", "dense", "joined")
UNRELATED_PATCHES = ("outside_region", "other_patches")
WORLD_SIZES = {"train": 1500, "val": 250, "transfer": 200, "lvis_train": 600, "lvis_val": 150, "side": 128}
