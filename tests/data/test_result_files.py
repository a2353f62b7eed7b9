"""Lists of results are read as JSON reads them, or refused with the entry and its place."""

import gzip
import json
import random

import pytest

from denserc.data import result_files as module
from denserc.data.result_files import stream_results
from denserc.structures import DataError

ENTRY = {"image_id": 1, "category_id": 2, "bbox": [1.5, 2, 30, 4e-3], "score": 0.5, "name": 'a "],[{ \\ é'}
CHUNKS = [37, 1 << 22]


@pytest.fixture(params=CHUNKS)
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", request.param if request.param > 1000 else 200)
    return request.param


def read(path, content: str | bytes) -> list:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(stream_results(path, "predictions"))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ENTRY] * 9),
        json.dumps([ENTRY] * 9, ensure_ascii=False, indent=2) + "\n\n",
        "\r\n [ " + ",\r\n".join([json.dumps(ENTRY, separators=(",", ":"))] * 9) + "\t]\r\n",
        "[]",
        " [ ] ",
        "[1, -2.5e3, NaN, null, [3], {}, 12345]",
    ],
)
@pytest.mark.parametrize("form", ["plain", "mark", "gzip", "gzip and mark"])
def test_valid_lists_are_read_in_every_form(tmp_path, chunk, text, form):
    content = ("\ufeff" if "mark" in form else "").encode() + text.encode()
    content = gzip.compress(content) if "gzip" in form else content
    assert repr(read(tmp_path / "r.json", content)) == repr(json.loads(text))


TWO = json.dumps([ENTRY, ENTRY])


@pytest.mark.parametrize(
    "text, words",
    [
        (str([{"image_id": 1, "score": 0.5}]), "not JSON at entry 0, character 2.*double quotes.*json.dump"),
        (TWO[:-2] + ",}]", "not JSON at entry 1"),
        (TWO[:-1] + ", {'image_id': 1}]", "not JSON at entry 2.*json.dump"),
        (TWO.replace("}, {", "} {"), "entry 1.*no comma"),
        (TWO.replace("}, {", "},, {"), "not JSON at entry 1"),
        (TWO[:-1] + ",]", "not JSON at entry 2"),
        ("[," + TWO[1:], "not JSON at entry 0"),
        (TWO + TWO, "go on after the list of 2 entries"),
        (TWO + "\n" + TWO, "go on after the list of 2 entries"),
        (TWO + "}", "go on after the list"),
        (TWO[:-1], "cut short"),
        (TWO[:-2], "entry 1.*cut short"),
        (TWO[:-40], "cut short"),
        (TWO[:60], "entry 0.*cut short"),
        ("[", "cut short"),
        ("[" + json.dumps(ENTRY) + ",", "cut short"),
        ("", "are empty"),
        ("  \n", "are empty"),
        ("{}", "start with '{'.*'images' and 'annotations'"),
        ('{"a": 1}\n{"a": 2}\n', "not one object per line"),
        ("<!DOCTYPE html><html>", "web page"),
        ("version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("null", "start with 'n'"),
        ("[" * 100_000, "nested too deeply|longer than 200"),
        ('[{"a": ' + "[" * 100_000, "nested too deeply|longer than 200"),
        ('[{"image_id": ' + "9" * 5000 + "}]", "not JSON at entry 0"),
        ("[undefined]", "not JSON at entry 0"),
        ('[{"a": 1}, tru', "cut short"),
        ('[{"a": 0x10}]', "not JSON at entry 0"),
        ('[{"a": "line\nbreak"}]', "not JSON at entry 0"),
    ],
)
def test_damage_is_named_with_entry_and_place(tmp_path, chunk, text, words):
    for content in (text.encode(), gzip.compress(text.encode())):
        with pytest.raises(DataError, match=words) as raised:
            read(tmp_path / "r.json", content)
        assert "r.json" in str(raised.value) and len(str(raised.value)) < 800


@pytest.mark.parametrize(
    "content",
    [b"[\xff\xfe]", '[{"a": "é"}]'.encode("latin-1"), TWO.encode("utf-16"), gzip.compress(TWO.encode(), mtime=0)[:-12],
     gzip.compress(TWO.encode(), mtime=0)[:40], b"\x1f\x8b\x08\x00 no gzip at all", b"\x00" * 100,
     '[{"a": "é'.encode()[:-1]],
)  # fmt: skip
def test_bytes_that_are_no_text_are_refused(tmp_path, chunk, content):
    with pytest.raises(DataError, match="r.json"):
        read(tmp_path / "r.json", content)


def test_places_are_those_of_the_file(tmp_path, chunk):
    text = json.dumps([ENTRY] * 50)
    at = text.index("30", len(text) // 2)
    with pytest.raises(DataError, match=f"character {at}:"):
        read(tmp_path / "r.json", text[:at] + "x" + text[at:])


def test_a_folder_or_an_absent_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "a\0b.json"):
        with pytest.raises(DataError, match="predictions"):
            list(stream_results(path, "predictions"))


def test_random_damage_gives_entries_or_an_error_of_ours(tmp_path, chunk):
    rng = random.Random(chunk)
    text = json.dumps([ENTRY] * 3, ensure_ascii=False)
    for _ in range(600):
        letters = list(text)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(letters))
            letters[at : at + rng.randint(0, 6)] = rng.choice(["", ",", "]", "}", '"', "'", "[", "{", "9", "é", "\n"])
        damaged = "".join(letters)
        try:
            expected = repr(json.loads(damaged))
        except ValueError:
            with pytest.raises(DataError):
                read(tmp_path / "r.json", damaged)
            continue
        if expected.startswith("["):
            assert repr(read(tmp_path / "r.json", damaged)) == expected
