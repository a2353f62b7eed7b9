"""Tiny models of each family, registered with open_clip as users' own would be."""

import json
from pathlib import Path

import open_clip
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from tests.paths import FIXTURES

FOLDER = FIXTURES / "tiny_models"


@register_model
def denserc_test_siglip(pretrained: bool = False, **kwargs) -> VisionTransformer:
    """timm's SigLIP ViT for 32-pixel images: four blocks of width 32."""
    for option in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(option, None)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    return VisionTransformer(**{**sizes, "class_token": False, "global_pool": "map", "num_classes": 0, **kwargs})


def tiny_config(family: str) -> dict:
    """open_clip's configuration of DenseRC-Test-<family>.

    "CLIP", or "Sigmoid" for SigLIP: open_clip would fetch a tokenizer for a name with "siglip" in it.
    """
    return json.loads((FOLDER / f"DenseRC-Test-{family}.json").read_text())


def register(folder: Path, name: str, config: dict) -> str:
    """Makes a configuration known to open_clip, by a file in a folder; returns its name."""
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


open_clip.add_model_config(FOLDER / "DenseRC-Test-CLIP.json")
open_clip.add_model_config(FOLDER / "DenseRC-Test-Sigmoid.json")
