"""The one reader of text files and of JSON fields."""

import gzip
import json
import math

import numpy as np
import pytest

from denserc.structures import DataError
from denserc.structures.records import Record, read_json, read_text, record_of, whole_id


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.encode()),
    ],
    ids=["plain", "byte order mark", "gzip", "gzip and mark"],
)
def test_marks_and_gzip_make_no_difference(tmp_path, encode):
    file = tmp_path / "names.txt"
    file.write_bytes(encode("café\n"))
    assert read_text(file, "list") == "café\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", "is not UTF-8: byte 3 is 0xe9. Save it as UTF-8"),
        (b"", "is empty"),
        (b"[" * 100_000, "nested too deeply"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"[1, 2]\n[3]", "not JSON"),
        (b"\x1f\x8b broken", "cannot be read"),
    ],
)
def test_an_unreadable_file_is_named_with_its_fault(tmp_path, content, message):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_json(file, "annotation file")
    assert str(file) in str(raised.value)


def test_an_absent_file_is_named_with_advice(tmp_path):
    with pytest.raises(DataError, match=r"none\.json does not exist\. Look elsewhere"):
        read_json(tmp_path / "none.json", "annotation file", advice="Look elsewhere.")


BAD_WHOLE = ['"1"', "1.5", "-1", "true", "null", "NaN", "Infinity", "[1]", str(2**70), "1e400"]


@pytest.mark.parametrize("value", BAD_WHOLE)
def test_what_is_no_whole_number_names_the_field(value):
    record = Record("a.json, images[3]", json.loads(f'{{"width": {value}}}'))
    with pytest.raises(DataError, match=r"a\.json, images\[3\]: 'width' is .*; expected is a whole number from 0"):
        record.whole("width")


@pytest.mark.parametrize("value", ['"1"', "true", "null", "NaN", "-Infinity", "{}", "1" + "0" * 400])
def test_what_is_no_finite_number_names_the_field(value):
    with pytest.raises(DataError, match="expected is a finite number"):
        Record("here", json.loads(f'{{"area": {value}}}')).number("area")


def test_absent_fields_take_their_default_or_raise():
    record = Record("here", {"width": 3.0})
    assert (record.whole("width"), record.whole("height", default=None), record.list("x", default=[])) == (3, None, [])
    with pytest.raises(DataError, match="there is no 'height'; the fields are width"):
        record.whole("height")


def test_records_of_a_list_know_their_place():
    record = Record("a.json", {"images": [{"id": 1}, 7]})
    entries = record.records("images")
    assert next(entries).where == "a.json, images[0]"
    with pytest.raises(DataError, match=r"a\.json, images\[1\]: 7 is not an object"):
        next(entries)
    with pytest.raises(DataError, match="not an object"):
        record_of("here", [])


@pytest.mark.parametrize(
    "value, number",
    [(0, 0), (7, 7), (-3, -3), (3.0, 3), ("000123", 123), ("-5", -5), (2**53 - 1, 2**53 - 1), (np.int64(9), 9)],
)
def test_ids_are_whole_numbers_or_text_of_digits(value, number):
    assert whole_id(value) == number and type(whole_id(value)) is int


@pytest.mark.parametrize(
    "value", [None, True, 1.5, math.nan, math.inf, 2**53, 10**400, "", "a1", "1.0", " 1", "٣", [1]]
)
def test_other_values_are_no_ids(value):
    assert whole_id(value) is None
