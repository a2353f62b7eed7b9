"""Tokenizers that have to be fetched are asked for only when a text is encoded."""

import sys

import open_clip
import pytest
import torch

from denserc.construction import Construction, DenseEncoder, DenseModel, load_checkpoint, save_checkpoint
from denserc.encoders import build_clip
from denserc.encoders.text import FetchedTokenizer, PackagedTokenizer, open_clip_tokenizer
from denserc.structures import ConfigurationError
from tests.tiny_models import register, tiny_config


@pytest.fixture(scope="module")
def fetched_name(tmp_path_factory):
    """A tiny SigLIP whose tokenizer is on the hub."""
    config = tiny_config("Sigmoid")
    config["text_cfg"] |= {"hf_tokenizer_name": "nobody/denserc-test", "tokenizer_kwargs": {"clean": "canonicalize"}}
    return register(tmp_path_factory.mktemp("configs"), "DenseRC-Test-Fetched", config)


def test_encoder_is_built_saved_and_loaded_without_tokenizer(tmp_path, monkeypatch, fetched_name):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    clip = build_clip(fetched_name, random_init=True)
    model = DenseModel(DenseEncoder(clip.image, Construction()), clip.text, clip.logit_scale)
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.encoder(torch.rand(1, 3, 32, 32)).shape == (1, 32, 4, 4)
    assert loaded.text.fingerprint() == clip.text.fingerprint()
    with pytest.raises(ConfigurationError, match=r"nobody/denserc-test.*pip install 'denserc\[siglip\]'"):
        loaded.text.encode_text(["a cat"])


def test_a_tokenizer_that_cannot_be_fetched_says_how_to(monkeypatch, fetched_name):
    def offline(name):
        raise OSError("offline mode is enabled")

    monkeypatch.setitem(sys.modules, "transformers", sys)  # anything that can be imported
    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    with pytest.raises(ConfigurationError, match=r"(?s)offline mode is enabled.*HF_HUB_OFFLINE=1.*hf download"):
        open_clip_tokenizer(fetched_name)(["a cat"])


def test_it_is_made_once_and_then_tokenizes(monkeypatch, fetched_name):
    made = []
    monkeypatch.setitem(sys.modules, "transformers", sys)
    tokenize = lambda prompts, length: torch.ones(len(prompts), length or 12)  # noqa: E731
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: made.append(name) or tokenize)
    tokenizer = open_clip_tokenizer(fetched_name)
    assert not made
    assert tokenizer(["a", "b"]).shape == (2, 12) and tokenizer(["c"]).shape == (1, 12)
    assert made == [fetched_name]


def test_another_source_or_setting_is_another_identity():
    base = {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"clean": "canonicalize"}, "context_length": 64}
    identity = FetchedTokenizer("x", base).identity()
    assert identity == FetchedTokenizer("x", dict(base, width=768)).identity()
    for change in ({"hf_tokenizer_name": "a/c"}, {"tokenizer_kwargs": {}}, {"context_length": 16}):
        assert FetchedTokenizer("x", base | change).identity() != identity


def test_which_models_have_which():
    assert isinstance(open_clip_tokenizer("EVA02-B-16"), PackagedTokenizer)
    assert all(isinstance(open_clip_tokenizer(f"ViT-B-16-SigLIP{v}"), FetchedTokenizer) for v in ("", "2"))


def test_packaged_miniatures_fingerprint_is_unchanged():
    """Checkpoints and cached embeddings carry it: it changes only with its weights or words."""
    assert build_clip("DenseRC-Miniature").text.fingerprint() == "a1723efd38385fa2"
