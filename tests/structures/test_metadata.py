"""Metadata as typed dataclasses: a field that is missing, unknown or of another type is named."""

from dataclasses import dataclass

import pytest

from denserc.structures import CheckpointError, DataError
from denserc.structures.metadata import json_mapping, typed_fields


@dataclass
class About:
    name: str
    size: int
    means: list[float]
    extra: dict
    note: str | None = None


RIGHT = {"name": "x", "size": 3, "means": [0.5, 1], "extra": {}}


def test_right_values_make_the_dataclass():
    assert typed_fields(About, RIGHT, "here") == About("x", 3, [0.5, 1], {})
    assert typed_fields(About, {**RIGHT, "note": "y"}, "here").note == "y"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": 3}, "name is 3, expected is text"),
        ({"name": None}, "name is None, expected is text"),
        ({"name": "\ud800"}, "name is .*ud800.*, expected is text"),
        ({"size": 2.5}, "size is 2.5, expected is a whole number"),
        ({"size": True}, "size is True, expected is a whole number"),
        ({"size": "3"}, "size is '3', expected is a whole number"),
        ({"means": "abc"}, "means is 'abc', expected is a list, each a finite number"),
        ({"means": [0.5, float("nan")]}, "means is .*nan.*, expected is a list"),
        ({"means": [0.5, float("inf")]}, "means is .*inf.*, expected is a list"),
        ({"means": [10**400]}, "means is .*, expected is a list"),
        ({"means": [[0.5]]}, "means is .*, expected is a list"),
        ({"means": [True]}, "means is .*, expected is a list"),
        ({"extra": []}, r"extra is \[\], expected is a mapping"),
        ({"note": 3}, "note is 3, expected is text or null"),
        ({"more": 1}, r"unknown are \['more'\]"),
        ({3: 1}, r"unknown are \['3'\]"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(change, told):
    with pytest.raises(CheckpointError, match=f"^here is damaged: {told}"):
        typed_fields(About, {**RIGHT, **change}, "here")


def test_missing_fields_are_listed():
    with pytest.raises(DataError, match=r"missing are \['name', 'size', 'means', 'extra'\]"):
        typed_fields(About, {}, "here", error=DataError)


@pytest.mark.parametrize("text", ["{junk", "", "[" * 100_000, "[1]", "3", "null", '"a"', None, b"\xff", "1" * 5000])
def test_what_is_no_mapping_of_json_is_told(text):
    with pytest.raises(CheckpointError, match="^here is damaged"):
        json_mapping(text, "here")
