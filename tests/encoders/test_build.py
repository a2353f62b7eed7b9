import open_clip
import pytest
import torch
from safetensors.torch import save_file

from denserc.encoders import build_clip
from denserc.structures import ConfigurationError, WeightsMismatchError


def test_unknown_names_and_tags_are_refused_with_what_is_known():
    with pytest.raises(ConfigurationError, match="EVA02-B-16"):
        build_clip("EVA02-B-17", random_init=True)
    with pytest.raises(ConfigurationError, match="merged2b_s8b_b131k"):
        build_clip("EVA02-B-16", "no-such-tag")


def test_weights_must_be_given_or_random_init_asked_for():
    with pytest.raises(ConfigurationError, match="random_init=True"):
        build_clip("EVA02-B-16")
    with pytest.raises(ConfigurationError, match="choose one"):
        build_clip("EVA02-B-16", "merged2b_s8b_b131k", random_init=True)


def test_towers_that_cannot_be_opened_are_refused_by_name():
    with pytest.raises(ConfigurationError, match="RN50 has an image tower of type ModifiedResNet"):
        build_clip("RN50", random_init=True)


def test_open_clip_files_load_exactly(tmp_path, miniature):
    state = {f"visual.{k}": v.clone() for k, v in miniature.image.visual.state_dict().items()}
    state |= {f"text.{k}": v.clone() for k, v in miniature.text.text.state_dict().items()}
    state["logit_scale"] = torch.tensor(2.0)
    path = tmp_path / "clip.safetensors"
    save_file(state, path)
    clip = build_clip("DenseRC-Miniature", str(path))
    assert all(torch.equal(v, state[f"visual.{k}"]) for k, v in clip.image.visual.state_dict().items())
    assert clip.logit_scale == pytest.approx(torch.tensor(2.0).exp().item())
    del state["visual.trunk.norm.weight"]
    save_file(state, path)
    with pytest.raises(WeightsMismatchError, match="visual.trunk.norm.weight"):
        build_clip("DenseRC-Miniature", str(path))


def test_the_towers_say_what_they_are(miniature):
    tower = miniature.image
    assert (tower.patch_size, tower.native_size, tower.name) == (8, 64, "DenseRC-Miniature")
    assert tower.pixels.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert miniature.text.embed_dim == tower.embed_dim


def test_the_text_fingerprint_follows_the_weights(miniature):
    before = miniature.text.fingerprint()
    assert before == miniature.text.fingerprint()
    with torch.no_grad():
        next(miniature.text.parameters()).view(-1)[0] += 1e-3
    assert miniature.text.fingerprint() != before


def test_the_text_tower_never_trains(miniature):
    miniature.text.train()
    assert not miniature.text.training and not any(p.requires_grad for p in miniature.text.parameters())
