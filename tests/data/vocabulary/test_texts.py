"""Names that are one text to an encoder, and names that it cuts off."""

import logging

import pytest
import torch

from denserc.data.vocabulary.prompts import VILD_TEMPLATES
from denserc.data.vocabulary.published import VOCABULARIES, vocabulary
from denserc.data.vocabulary.texts import same_texts, warn_of_cut_texts
from denserc.encoders import build_clip
from denserc.encoders.text import PackagedTokenizer, open_clip_tokenizer


class Tower:
    """The tokens of one of open_clip's models, without its weights."""

    def __init__(self, name: str):
        self.tokenizer = open_clip_tokenizer(name)

    def tokens(self, prompts):
        return [tuple(row) for row in self.tokenizer(prompts).tolist()]

    def cut(self, prompts):
        return self.tokenizer.cut(prompts)


@pytest.fixture(scope="module")
def clip() -> Tower:
    return Tower("ViT-B-16")


@pytest.mark.parametrize(
    "names",
    [
        ("green_ball", "green ball"),
        ("Cat", "cat."),
        ("cat  dog", " cat\tdog\n"),
        ("caf\u00e9", "cafe\u0301"),  # one character, and two
        ("\ufb01sh", "fish"),  # a ligature
        ("salt &amp; pepper", "salt & pepper"),
        ("cabinet/shelf", "cabinet or shelf"),
    ],
)
def test_one_text_is_told_by_the_tokens(clip, names):
    assert same_texts(["dog", *names, "cow"], clip) == [names]
    miniature = build_clip("DenseRC-Miniature", random_init=True).text
    assert same_texts(["dog", *names, "cow"], miniature) == [names]


def test_other_texts_stay_apart(clip):
    names = ["cat", "cats", "cat!", "the cat", "dog", "chat", "c a t"]
    assert same_texts(names, clip) == same_texts(names) == []


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_no_published_list_has_one_text_twice(clip, name):
    names = vocabulary(name).names
    assert same_texts(names, clip) == same_texts(names) == []


def test_no_name_of_lvis_is_cut(clip, caplog):
    warn_of_cut_texts(vocabulary("ov_lvis").names, VILD_TEMPLATES, clip)
    assert not caplog.records


def test_cut_names_are_named_in_one_warning(clip, caplog):
    long = ["a thing that is " + "very " * 100 + end for end in ("red", "blue")]
    with caplog.at_level(logging.WARNING):
        warn_of_cut_texts(["cat", *long], VILD_TEMPLATES, clip)
    (record,) = caplog.records
    assert "sentences of 2 classes" in record.getMessage()
    assert "very red" in record.getMessage() and "very blue" in record.getMessage() and "'cat'" not in record.message
    assert same_texts(long, clip) == [tuple(long)]


@pytest.mark.parametrize("words", range(70, 80))
def test_a_text_that_just_fits_is_not_cut(clip, words):
    assert clip.cut([" ".join(["cat"] * words)]) == [words > 75]  # 77 with begin and end


@pytest.mark.parametrize(("padding", "end"), [(1, 1), (0, 2)])
def test_cuts_of_tokenizers_that_pad_by_their_end(padding, end):
    """SigLIP's padding token is its end token."""

    def tokenize(texts, length):
        rows = torch.full((len(texts), length or 8), padding)
        for row, text in zip(rows, texts, strict=True):
            tokens = torch.tensor([*range(10, 10 + len(text.split())), end])[: len(row)]
            tokens[-1] = end
            row[: len(tokens)] = tokens
        return rows

    texts = [" ".join("a" * n) for n in range(1, 12)]
    assert PackagedTokenizer(tokenize).cut(texts) == [n > 7 for n in range(1, 12)]
