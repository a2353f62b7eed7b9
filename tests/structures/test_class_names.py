"""A vocabulary takes a list of names, and nothing that only looks like one."""

import json

import pytest

from denserc.structures import DataError, TextEmbeddings, Vocabulary, class_names
from tests.paths import FIXTURES


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat", r"'cat', one text; expected is a list of names, such as \['cat'\]"),
        (b"cat", "one text"),
        ("", "one text"),
        (None, "None; expected is a list"),
        (3, "3; expected is a list"),
        ({"cat", "dog"}, "expected is a list"),
        (["cat", 1], "number 2: .* got 1"),
        (["cat", True], "number 2: .* got True"),
        (["cat", None], "number 2: .* got None"),
        (["cat", float("nan")], "number 2: .* got nan"),
        (["cat", ["dog"]], "number 2"),
        (["cat", b"dog"], "number 2"),
        (["cat", ""], "number 2"),
        (["cat", " \t\n"], "number 2"),
        (["cat", "d\x00og"], r"number 2: 'd\\x00og' has the character U\+0000"),
        (["cat", "d\x1bog"], r"U\+001B"),
        (["cat", "\ufeffdog"], r"U\+FEFF"),
        ([], "at least one class name"),
        (["cat", "dog", "cat"], r"more than once: \['cat'\]"),
    ],
)
def test_what_is_no_list_of_names_is_refused(names, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(names)


def test_a_lone_surrogate_is_named():
    names = json.loads((FIXTURES / "cases/fuzz-37-vocabulary-lone-surrogate/names.json").read_text())
    with pytest.raises(DataError, match=r"number 2: '\\ud800' has the character U\+D800"):
        Vocabulary(names)


@pytest.mark.parametrize("novel", ["cat", b"cat", 3, None, ["cat", 1], [""]])
def test_novel_is_a_list_of_names_too(novel):
    with pytest.raises(DataError, match="Novel classes"):
        Vocabulary(["c", "a", "t", "cat"], novel=novel)


def test_names_in_any_script_are_taken():
    names = [
        "Katze",
        "\u732b",
        "\u0642\u0637\u0629",
        "caf\u00e9",
        "red cup",
        "\U0001f431",
        "\u0915\u094d\u200d\u0937",
        "a\u00a0b",
        "#1",
    ]
    assert Vocabulary(iter(names), novel={"Katze"}).names == tuple(names) == class_names(names)
    assert class_names({"one"}, ordered=False) == ("one",)


def test_embeddings_of_one_text_are_refused():
    import torch

    with pytest.raises(DataError, match="one text"):
        TextEmbeddings("cat", torch.eye(3))
