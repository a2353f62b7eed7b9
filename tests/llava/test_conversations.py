"""Training files: what is read, and what is refused with file, position, field, value and remedy."""

import gzip
import json
import logging
import math

import pytest

from denserc.llava.conversations import read_conversations, with_image_in_front
from denserc.structures import DataError
from tests.llava.conftest import turns, write_data


def read(tmp_path, *entries, pictures=1):
    file, images = write_data(tmp_path, list(entries), pictures)
    return read_conversations([file], images)


def test_rounds_and_pictures_are_read(tmp_path):
    with_picture = {
        "id": "a",
        "image": "0.png",
        "conversations": turns("what is it\n<image>", "red", "how many", "two"),
    }
    text = {"id": "a", "conversations": turns("is it red", "no")}
    first, second = read(tmp_path, with_picture, text)
    assert first.rounds == (("<image>\nwhat is it", "red"), ("how many", "two"))
    assert first.image == str(tmp_path / "images" / "0.png")
    assert (second.image, second.rounds) == (None, (("is it red", "no"),))
    assert (first.words, second.words) == (8, 4)
    assert "entry 0 (id 'a')" in first.name  # the same id twice is usual in LLaVA's mix, and harmless in training


@pytest.mark.parametrize(
    ("question", "expected"),
    [("<image>\nwhat", "<image>\nwhat"), ("what <image> ", "<image>\nwhat"), ("<image>", "<image>")],
)
def test_image_goes_to_the_front(question, expected):
    assert with_image_in_front(question) == expected


def test_turns_without_partner_are_left_out_and_counted(tmp_path, caplog):
    conversation = [{"from": "gpt", "value": "yes"}, *turns("is it red", "no", "how many")]
    with caplog.at_level(logging.WARNING, "denserc"):
        (found,) = read(tmp_path, {"conversations": conversation}, pictures=0)
    assert found.rounds == (("is it red", "no"),)
    assert "First turns of the assistant, without a question, are left out: 1" in caplog.text
    assert "Last questions without an answer are left out: 1" in caplog.text


IMAGE = {"id": 7, "image": "0.png"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("text", "it is a str; expected is an object"),
        ({"id": 7}, "'conversations' is None; expected is a list of turns"),
        ({**IMAGE, "conversations": turns("is it red", "no")}, "there are 0 <image> .* Add it to the first question"),
        ({**IMAGE, "conversations": turns("<image> or <image>", "no")}, "there are 2 <image> .* Remove the others"),
        ({**IMAGE, "conversations": turns("<image> red", "no", "<image>", "no")}, "there are 2 <image> .* Remove"),
        ({"conversations": turns("<image> red", "no")}, "holds <image>, but there is no 'image'. Add 'image'"),
        ({**IMAGE, "conversations": turns("is it", "<image>")}, "an answer holds <image>; .* Move it to the question"),
        ({**IMAGE, "conversations": turns("a", "b", "<image>")}, "the question with <image> has no answer"),
        ({"conversations": turns("is it red", " ")}, r"\[1\]\['value'\] is ' '; expected is the text of the answer"),
        ({"conversations": turns("", "no")}, r"\[0\]\['value'\] is ''; expected is the text of the question"),
        ({"conversations": turns("is it red")}, "no question with an answer"),
        ({"conversations": [{"from": "user", "value": "a"}]}, "'user'; expected is 'human' or 'gpt'. Rename"),
        ({"conversations": ["a"]}, r"'conversations'\[0\] is 'a'; expected is an object"),
        ({"conversations": [*turns("a", "b"), *turns("c", "d")[1:]]}, r"order \['human', 'gpt', 'gpt'\]; .* Join"),
        ({"image": ["0.png"], "conversations": turns("<image>", "b")}, "'image' is .*; expected is one path"),
        ({"image": "", "conversations": turns("a", "b")}, "Leave 'image' out of an entry of text only"),
        ({"image": "9.png", "conversations": turns("<image>", "b")}, "picture .*9.png does not exist. Download it"),
    ],
)
def test_what_breaks_a_rule_is_refused(tmp_path, entry, message):
    good = {"conversations": turns("is it red", "no")}
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, good, entry)
    assert "1 training entries cannot be used" in str(error.value)
    assert f"{tmp_path / 'data.json'}, entry 1" in str(error.value)


def test_all_problems_are_counted_and_ten_are_shown(tmp_path):
    bad = {"conversations": turns("", "no")}
    with pytest.raises(DataError, match=r"(?s)12 training entries .*\.\.\. and 2 more") as error:
        read(tmp_path, *[bad] * 12)
    assert str(error.value).count("expected is the text") == 10


@pytest.mark.parametrize(
    ("content", "message"), [("{}", "holds a dict"), ("[]", "holds an empty list"), ("[", "is not JSON")]
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_conversations([tmp_path / "data.json"], tmp_path)


def test_no_file_and_an_absent_file_are_named(tmp_path):
    with pytest.raises(DataError, match="Set LLAVA.DATA.FILES"):
        read_conversations([], tmp_path)
    with pytest.raises(DataError, match="none.json does not exist"):
        read_conversations([tmp_path / "none.json"], tmp_path)


def test_several_files_are_joined(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps([{"conversations": turns("how many", name)}]))
    found = read_conversations([tmp_path / "a.json", tmp_path / "b.json"], tmp_path)
    assert [one.rounds[0][1] for one in found] == ["a", "b"]


OTHERS = (None, 3, True, math.nan, [], {}, [["x"]], "", "\n ")


@pytest.mark.parametrize(
    "entry",
    [
        *OTHERS[:-2],
        *[{"conversations": new} for new in OTHERS],
        *[{"conversations": [new, *turns("a", "b")]} for new in OTHERS],
        *[{"conversations": [{"from": new, "value": "a"}, *turns("a", "b")[1:]]} for new in OTHERS],
        *[{"conversations": [{"from": "human", "value": new}, *turns("a", "b")[1:]]} for new in OTHERS],
        *[{"image": new, "conversations": turns("<image>", "b")} for new in OTHERS],
        *[
            {"image": new, "conversations": turns("<image>", "b")}
            for new in ("a\0b", "\ud800", ".", "folder", "x" * 5000)
        ],
        {"id": ["x" * 5000], "conversations": turns("", "b")},
    ],
    ids=lambda value: repr(value)[:50],
)
def test_damaged_entries_are_named(tmp_path, entry):
    (tmp_path / "images" / "folder").mkdir(parents=True)
    file, images = write_data(tmp_path, [{"conversations": turns("is it red", "no")}, entry], 1)
    with pytest.raises(DataError, match="data.json, entry 1") as raised:
        read_conversations([file], images)
    assert len(str(raised.value)) < 12_000


@pytest.mark.parametrize("content", ["", "[" * 99_999, "<html>", "version https://git-lfs", "[1] [2]", "3", "null"])
def test_files_that_are_no_list_are_named(tmp_path, content):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataError, match=r"data\.json"):
        read_conversations([tmp_path / "data.json"], tmp_path)


def test_marks_and_gzip_make_no_difference(tmp_path):
    content = ("\ufeff" + json.dumps([{"conversations": turns("how many", "two")}])).encode()
    for name, data in (("a.json", content), ("b.json", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        assert len(read_conversations([tmp_path / name], tmp_path)) == 1
