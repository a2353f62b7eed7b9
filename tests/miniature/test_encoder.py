"""The miniature CLIP: architecture, tokenizer, and accuracy of the packaged weights."""

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from denserc.encoders.miniature import (
    MINIATURE,
    MINIATURE_WEIGHTS,
    MiniatureTokenizer,
    create_miniature,
    miniature_tokenizer,
)
from denserc.miniature.world import Domain
from denserc.miniature.zero_shot import zero_shot_accuracy
from denserc.structures import WeightsMismatchError


def test_the_architecture_is_eva02_at_small_size():
    assert MINIATURE in open_clip.list_models()
    assert timm.is_model("eva02_miniature_patch8_clip_64")
    model, _ = create_miniature(None)
    trunk = model.visual.trunk
    assert type(trunk) is type(timm.create_model("eva02_base_patch16_clip_224", num_classes=0))
    assert (len(trunk.blocks), trunk.embed_dim, trunk.blocks[0].attn.num_heads) == (6, 128, 8)
    assert trunk.blocks[0].attn.qkv is None and trunk.rope is not None
    assert isinstance(trunk.blocks[0].attn.norm, torch.nn.LayerNorm)
    assert sum(p.numel() for p in model.visual.parameters()) < 1_400_000


def test_random_weights_follow_the_seed_and_keep_global_state():
    state = torch.random.get_rng_state()
    first, second, other = (create_miniature(None, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_tokenizer_fits_the_text_tower():
    tokenizer = miniature_tokenizer()
    config = open_clip.get_model_config(MINIATURE)["text_cfg"]
    assert tokenizer.vocab_size == config["vocab_size"]
    assert tokenizer.context_length == config["context_length"]
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1  # open_clip pools at the largest id


@pytest.mark.parametrize("text", ["a striped purple cross", "zebra crossing!", "über 42 naïve 猫", "x"])
def test_any_text_survives_the_tokenizer(text):
    tokenizer = miniature_tokenizer()
    ids = tokenizer.encode(text)
    assert all(0 < i < tokenizer.sot_token_id for i in ids)
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_different_unknown_words_get_different_tokens():
    rows = miniature_tokenizer()(["a zebra", "a giraffe", "a zebra"])
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def test_long_texts_are_cut_but_end():
    row = miniature_tokenizer()(["zebra " * 50])[0]
    assert row[-1] == miniature_tokenizer().eot_token_id


def test_bad_token_lists_are_refused():
    with pytest.raises(ValueError, match="distinct"):
        MiniatureTokenizer(["notatoken</w>x"])
    with pytest.raises(ValueError, match="distinct"):
        MiniatureTokenizer(["a</w>"])  # a byte already


def test_shipped_weights_are_small():
    assert MINIATURE_WEIGHTS.stat().st_size < 8 * 2**20


def test_weights_of_another_architecture_are_refused(tmp_path):
    state = load_file(MINIATURE_WEIGHTS)
    state["stranger"] = state.pop("logit_scale")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatchError) as error:
        create_miniature(tmp_path / "other.safetensors")
    assert error.value.missing == ["logit_scale"] and error.value.unexpected == ["stranger"]


@pytest.mark.parametrize("domain", list(Domain))
def test_shipped_weights_name_fresh_things_and_stuff(domain):
    model, tokenizer = create_miniature()
    scores = zero_shot_accuracy(model, tokenizer, domain, scenes=50, seed=123_456)
    assert scores["things"] > 60  # chance is 1.5
    assert scores["stuff"] > 80  # chance is 12.5


def test_random_weights_do_not():
    model, tokenizer = create_miniature(None)
    scores = zero_shot_accuracy(model, tokenizer, Domain.MAIN, scenes=12, seed=123_456)
    assert scores["things"] < 10
