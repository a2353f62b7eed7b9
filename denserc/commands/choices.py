"""Legal words of options, written out: the registries that define them import torch. A test compares the two."""

ABLATION_TABLES = ("11", "12", "13", "construction", "gates")
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
TEMPLATES = ("catseg", "plain", "vild")
UNRELATED_PATCHES = ("outside_region", "other_patches")
WORLD_SIZES = {"train": 1500, "val": 250, "transfer": 200, "lvis_train": 600, "lvis_val": 150, "side": 128}
