"""open_clip's own models, by shapes only: each is built, or an error names what does not fit."""

import logging

import open_clip
import pytest
import torch
from torch import nn

from denserc.encoders.build import _create, wrap_open_clip
from denserc.structures import CLIP_PIXELS, SIGLIP_PIXELS, ConfigurationError

# name -> patch size, native size, width, blocks, heads, width of the text space
OPENS = {
    "EVA02-B-16": (16, 224, 768, 12, 12, 512),
    "EVA02-L-14": (14, 224, 1024, 24, 16, 768),
    "EVA02-L-14-336": (14, 336, 1024, 24, 16, 768),
    "ViT-B-16-quickgelu": (16, 224, 768, 12, 12, 512),
    "ViT-B-32": (32, 224, 768, 12, 12, 512),
    "ViT-L-14-336-quickgelu": (14, 336, 1024, 24, 16, 768),
    "ViT-H-14-378-quickgelu": (14, 378, 1280, 32, 16, 1024),
    "ViT-bigG-14": (14, 224, 1664, 48, 16, 1280),
    "ViT-B-16-SigLIP": (16, 224, 768, 12, 12, 768),
    "ViT-B-16-SigLIP2": (16, 224, 768, 12, 12, 768),
    "ViT-SO400M-14-SigLIP-384": (14, 378, 1152, 27, 16, 1152),  # 27 patches of 14 in 384
}
REFUSED = {
    "RN50": "type ModifiedResNet",
    "convnext_base": "type ConvNeXt",
    "swin_base_patch4_window7_224": "type SwinTransformer",
    "MobileCLIP-S1": "type FastVit",
    "MobileCLIP-B": "no attention-pooling head; it has a class or register token",
    "ViTamin-B": "no attention-pooling head",
    "ViT-L-14-CLIPA": "pools by 'avg'",
    "EVA01-g-14": "no axial rotary embedding",
    "PE-Core-B-16": "pools by 'map'",
    "coca_ViT-B-32": "is a CoCa",
    "coca_base": "is a CoCa",
}
NEED_TRANSFORMERS = ["roberta-ViT-B-32", "nllb-clip-base-siglip"]


def on_shapes(name):
    logging.disable(logging.WARNING)
    try:
        with torch.device("meta"):
            model = open_clip.create_model(name, load_weights=False, force_custom_text=True, device="meta")
    finally:
        logging.disable(logging.NOTSET)
    model.logit_scale = nn.Parameter(torch.zeros(()))  # the one tensor whose value is read
    return wrap_open_clip(name, model)


@pytest.mark.parametrize("name", OPENS)
def test_it_opens_and_runs(name):
    tower = on_shapes(name).image
    sizes = tower.patch_size, tower.native_size, tower.width, tower.depth, tower.num_heads, tower.embed_dim
    assert sizes == OPENS[name]
    embedding = tower.encode_image(torch.empty(1, 3, 2 * tower.patch_size, 3 * tower.patch_size, device="meta"))
    assert embedding.shape == (1, tower.embed_dim)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("ViT-B-16-SigLIP", SIGLIP_PIXELS), ("ViT-B-16-SigLIP2", SIGLIP_PIXELS)]
    + [("EVA02-B-16", CLIP_PIXELS), ("ViT-L-14-336-quickgelu", CLIP_PIXELS)],
)
def test_weights_from_a_file_are_fed_as_those_of_a_tag(name, pixels):
    """Without a tag open_clip itself would normalize SigLIP's input with CLIP's statistics."""
    assert on_shapes(name).image.pixels == pixels


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reasons(name):
    with pytest.raises(ConfigurationError, match=f"^{name} .*{REFUSED[name]}"):
        on_shapes(name)


@pytest.mark.parametrize("name", NEED_TRANSFORMERS)
def test_a_text_tower_of_another_package_names_what_to_install(name, monkeypatch):
    monkeypatch.setattr("denserc.encoders.build.find_spec", lambda package: None)
    with pytest.raises(ConfigurationError, match=rf"{name}.*denserc\[siglip\]"):
        _create(name, None)
