"""Every key of DenseRC has help and is used: in a shipped configuration, a document or a test."""

import re

import pytest
import yaml

from denserc.config import KEYS, get_denserc_config, own_keys
from denserc.structures import ConfigurationError, Key, coerce, flatten
from tests.paths import CONFIGS, ROOT

OWN = [key.name for key in own_keys()]


def used_names() -> str:
    """Text of all documents and tests, and the keys that shipped configurations set."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "datasets").glob("*.md")]
    files += [*CONFIGS.glob("*.md"), *(path for path in (ROOT / "tests").rglob("*.py") if "v0_1" not in path.parts)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for path in CONFIGS.rglob("*.yaml"):
        text += "\n" + "\n".join(flatten(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return text.replace("__", ".").replace("cfg.", "")


def test_every_own_key_is_used():
    text = used_names()
    assert [name for name in OWN if not re.search(re.escape(name) + r"(?![\w.])", text.replace(". ", " "))] == []


def test_every_own_key_has_help_and_a_legal_default():
    for key in KEYS:
        assert key.help.endswith(".") and len(key.help.split()) > 3, key.name
        assert key.allows(key.default) or key.default in ("", "full_model"), key.name
        if key.kind is None:
            assert coerce(key.default, key.default) == key.default


def test_number_of_own_keys():
    """Version 0.1 had 117; a new one needs a reason."""
    segmentation = ("MODEL.CATSEG.", "MODEL.DENSE_SEGMENTER.", "TEST.SEM_SEG_", "INPUT.COLOR_", "INPUT.CROP.")
    second_model = [name for name in OWN if name.startswith(segmentation)]
    assert len(OWN) == len(set(OWN)) and len(second_model) <= 38
    language = [name for name in OWN if name.startswith(("MODEL.LLAVA.", "LLAVA."))]
    assert len(language) <= 24  # 23, and the sizes of the miniature's language model
    assert len(OWN) - len(second_model) - len(language) <= 81


def test_defaults_of_the_configuration_are_the_tables():
    defaults = flatten(get_denserc_config())
    for key in KEYS:
        assert defaults[key.name] == key.default


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [(1, 0.5, 1.0), ([1, 2], (), (1, 2)), ((1,), [0.5], [1]), ([0.5, 1], [1], [0.5, 1]), ([[1, 2]], [[0.5]], [[1, 2]])],
)
def test_values_take_the_type_of_the_default(value, default, expected):
    found = coerce(value, default)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "default"),
    [(True, 1), (1, True), ("x", 1), (0.5, 1), (None, 1), (1, "x"), (float("nan"), 0.5), ([float("inf")], [0.5])]
    + [("a", []), (["a"], [1]), ([1], ["a"]), ([float("nan")], []), ([[float("nan")]], [])],
)
def test_other_types_are_refused(value, default):
    with pytest.raises(ConfigurationError):
        coerce(value, default)


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({"minimum": 0, "maximum": 1}, [0, 1], [-0.1, 1.1]),
        ({"above": 0, "below": 1}, [0.1, 0.9], [0, 1]),
        ({"choices": ("a", "b")}, ["a", ["a", "b"]], ["c", ["a", "c"]]),
        ({"minimum": 0}, [[0, 1], None], [[0, -1]]),
    ],
)
def test_a_key_knows_its_range(limits, good, bad):
    key = Key("A.B", 0, "Help.", **limits)
    assert all(key.allows(value) for value in good) and not any(key.allows(value) for value in bad)
    assert key.legal()
