import functools
import re

import pytest
import timm
import torch
from torch.nn import functional as F

from denserc.encoders import build_foundation_model, foundation, register_foundation_model
from denserc.encoders.foundation import TIMM_MODELS, to_timm_keys
from denserc.encoders.towers.base import FoundationModel
from denserc.structures import CLIP_PIXELS, ConfigurationError, DataError, WeightsMismatchError


def test_stand_in_separates_regions_by_color_or_texture():
    model = build_foundation_model("colour_texture_p8")
    image = torch.full((1, 3, 64, 64), 0.2)
    image[:, 0, :, 32:] = 0.9  # right half: red
    image[:, :, 32:, ::4] += 0.3  # lower half: vertical stripes
    features = F.normalize(model(image), dim=1).flatten(2)[0]  # (C, 64)
    similarity = (features.T @ features).view(8, 8, 8, 8)
    within = similarity[1, 1, 2, 2]
    assert within > similarity[1, 1, 1, 6] + 0.3  # other color
    assert within > similarity[1, 1, 6, 1] + 0.5  # other texture


def test_stand_in_is_deterministic_and_takes_rectangles():
    model = build_foundation_model("colour_texture_p8")
    assert not list(model.parameters())
    image = torch.rand(2, 3, 32, 64)
    assert model(image).shape[-2:] == (4, 8)
    assert torch.equal(model(image), model(image))
    assert torch.isfinite(model(torch.zeros(1, 3, 16, 16))).all()


@torch.no_grad()
def test_dinov2_gives_timms_normalized_patch_tokens():
    model = build_foundation_model("dinov2_vits14", random_init=True)
    images = torch.randn(1, 3, 56, 28)
    tokens = model.model.forward_features(images)[:, model.model.num_prefix_tokens :]
    torch.testing.assert_close(model(images), tokens.transpose(1, 2).reshape(1, -1, 4, 2), atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())


def test_sizes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"patch size 8 divides; got \(30, 32\)"):
        build_foundation_model("colour_texture_p8")(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ConfigurationError, match="dinov2_vitb14"):
        build_foundation_model("dinov9")
    with pytest.raises(ConfigurationError, match="needs either weights"):
        build_foundation_model("dinov2_vits14")


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_every_name_is_a_timm_model_with_its_patch_size(name):
    choice = TIMM_MODELS[name]
    with torch.device("meta"):
        model = timm.create_model(choice.timm_name, num_classes=0, dynamic_img_size=True)
    assert f"{choice.timm_name}.{choice.tag}" in timm.list_pretrained(choice.timm_name)
    assert model.patch_embed.patch_size[0] == int(re.search(r"vit[sbl](\d+)", name)[1])
    assert bool(model.reg_token is not None) is ("reg" in name or "dinov3" in name)
    assert choice.layer == (-2 if "dinov3" in name else -1)


@torch.no_grad()
def test_dinov3_gives_the_normalized_penultimate_block(monkeypatch):
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=3))
    model = build_foundation_model("dinov3_vits16", random_init=True)
    seen = {}
    model.model.blocks[-2].register_forward_hook(lambda module, given, out: seen.update(out=out))
    given = model(torch.randn(1, 3, 32, 48))
    tokens = model.model.norm(seen["out"])[:, model.model.num_prefix_tokens :]
    torch.testing.assert_close(given, tokens.transpose(1, 2).reshape(1, -1, 2, 3), atol=1e-5, rtol=1e-5)


def original(model: torch.nn.Module) -> dict:
    """A timm DINOv2's weights in facebookresearch's names."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    width = state["cls_token"].shape[-1]
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        first = torch.randn(1, 1, width)
        state["cls_token"] -= first
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], dim=1)
    assert state["pos_embed"].shape[1] == 1370 and "blocks.0.ls1.gamma" in state
    return state | {"mask_token": torch.zeros(1, width)}


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
@torch.no_grad()
def test_facebooks_files_of_dinov2_load_exactly(tmp_path, monkeypatch, name):
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=2))
    source = build_foundation_model(name, random_init=True)
    state = original(source.model)
    torch.save(state, tmp_path / "pretrain.pth")
    loaded = build_foundation_model(name, str(tmp_path / "pretrain.pth"))
    images = torch.randn(1, 3, 42, 28)
    torch.testing.assert_close(loaded(images), source(images), atol=1e-5, rtol=1e-5)
    torch.save(state | {"blocks.0.ls3.gamma": torch.zeros(1)}, tmp_path / "pretrain.pth")
    with pytest.raises(WeightsMismatchError, match="ls3"):
        build_foundation_model(name, str(tmp_path / "pretrain.pth"))


def test_timms_own_names_are_left_alone():
    state = {"cls_token": torch.zeros(1), "reg_token": torch.zeros(1)}
    assert to_timm_keys(state) == state


class Mean(FoundationModel):
    """Mean colors: the smallest model of one's own."""

    name, patch_size, pixels = "mean", 4, CLIP_PIXELS

    def forward(self, images):
        return torch.nn.functional.avg_pool2d(images, 4)


def test_ones_own_model_is_registered_by_name(monkeypatch):
    monkeypatch.setattr(foundation, "_BUILDERS", dict(foundation._BUILDERS))
    asked = []
    register_foundation_model("mean", lambda name, weights: asked.append((name, weights)) or Mean())
    model = build_foundation_model("mean", "file.pt")
    assert asked == [("mean", "file.pt")] and not model.training
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 3, 2, 2)
    for taken in ("mean", "dinov2_vitb14", "colour_texture_p8"):
        with pytest.raises(ConfigurationError, match="exists already"):
            register_foundation_model(taken, lambda name, weights: Mean())
    register_foundation_model("wrong", lambda name, weights: torch.nn.Identity())
    with pytest.raises(ConfigurationError, match="Identity, not a FoundationModel"):
        build_foundation_model("wrong", "file.pt")
