"""Every configuration file is readable, and has the sizes that its comments state."""

from pathlib import Path

import pytest

from denserc.config import read_config
from denserc.construction import construction_from_config
from denserc.distillation.distiller import foundation_input_size
from denserc.encoders.build import _has_quick_gelu
from tests.paths import CONFIGS

FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
PATCH = {"DenseRC-Miniature": 8} | dict.fromkeys(
    ("EVA02-B-16", "ViT-B-16-quickgelu", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2"), 16
)
PATCH |= dict.fromkeys(("EVA02-L-14-336", "EVA02-L-14", "ViT-L-14-quickgelu", "ViT-L-14-336-quickgelu"), 14)
FOUNDATION_PATCH = {"dinov2_vitb14": 14, "dinov2_vitl14": 14, "colour_texture_p8": 8}


def read(file):
    return read_config(CONFIGS / file)


@pytest.mark.parametrize("file", FILES)
def test_it_is_read_and_names_a_construction_and_a_known_encoder(file):
    cfg = read(file)
    construction_from_config(cfg)
    assert cfg.MODEL.ENCODER.NAME in PATCH


@pytest.mark.parametrize("file", [file for file in FILES if "distill" in file and "Base-" not in file])
def test_both_token_grids_are_equal_and_of_the_papers_size(file):
    cfg = read(file)
    patch = PATCH[cfg.MODEL.ENCODER.NAME]
    tokens = cfg.INPUT.SIZE // patch
    foundation = FOUNDATION_PATCH[cfg.DISTILL.FOUNDATION.NAME]
    assert foundation_input_size(cfg.INPUT.SIZE, patch, foundation) == tokens * foundation
    if not file.startswith("miniature"):
        assert (tokens, tokens * foundation) == (64, 896)
    assert cfg.DISTILL.CROP_SIZE % patch == 0
    assert Path(cfg.OUTPUT_DIR).name == Path(file).stem


@pytest.mark.parametrize("file", [file for file in FILES if "openai" in file])
def test_openais_encoders_keep_their_activation(file):
    assert _has_quick_gelu(read(file).MODEL.ENCODER.NAME)


@pytest.mark.parametrize("file", [file for file in FILES if "catseg_" in file or "catseg.yaml" in file])
def test_catseg_has_whole_patches_and_a_block_per_decoder(file):
    cfg = read(file)
    settings, patch = cfg.MODEL.CATSEG, PATCH[cfg.MODEL.ENCODER.NAME]
    assert all(side % patch == 0 for side in settings.INPUT_SIZE)
    assert len({len(settings[key]) for key in ("BLOCKS", "DECODER_DIMS", "GUIDANCE_DIMS", "PROJECTED_DIMS")}) == 1
    assert Path(cfg.OUTPUT_DIR).name == Path(file).stem
