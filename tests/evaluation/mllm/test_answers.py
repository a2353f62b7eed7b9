"""Answer and question files: what is read, and errors that name file, line, field, value and remedy."""

import pytest

from denserc.evaluation.mllm import read_answers, read_questions
from denserc.evaluation.mllm.answers import join
from denserc.structures import DataError
from tests.evaluation.mllm.files import answer, write_lines


def test_lines_are_read_with_their_ids_as_text(tmp_path):
    lines = [answer(7, "Red?", "yes"), answer("a/b.jpg", "Red?", "")]
    first, second = read_answers(write_lines(tmp_path / "a.jsonl", lines))
    assert (first.question_id, first.words, first.text, first.metadata) == ("7", "Red?", "yes", {})
    assert (second.question_id, second.text) == ("a/b.jpg", "")
    assert first.where == f"{tmp_path / 'a.jsonl'}, line 1"

    lines = [{"question_id": 7, "image": "x.jpg", "text": "Red?\nOne word.", "category": "random"}]
    (question,) = read_questions(write_lines(tmp_path / "q.jsonl", lines))
    assert (question.raw_id, question.words, question.image, question.category) == (7, "Red?", "x.jpg", "random")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "a.jsonl is empty"),
        ("\n\n", "a.jsonl is empty"),
        ('{"question_id": 1, "prompt": "x", "te', r"a.jsonl, line 1: not JSON .*run its question again"),
        ("[1]", r"a.jsonl, line 1: \[1\] is not an object"),
        (
            '{"question_id": 1, "prompt": "x"}',
            "a.jsonl, line 1: there is no 'text'; the fields are question_id, prompt",
        ),
        ('{"question_id": 1, "prompt": "x", "text": 3}', "line 1: 'text' is 3; expected is text"),
        ('{"question_id": 1.5, "prompt": "x", "text": ""}', "'question_id' is 1.5; expected is a whole number or text"),
        ('{"question_id": true, "prompt": "x", "text": ""}', "'question_id' is True"),
        ('\n{"question_id": "", "prompt": "x", "text": ""}', "line 2: 'question_id' is ''"),
    ],
)
def test_a_line_that_breaks_the_format_is_named(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_answers(tmp_path / "a.jsonl")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match="The answer file .*a.jsonl does not exist"):
        read_answers(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_answers(tmp_path / "b.jsonl")


def joined(tmp_path, ids, keys):
    answers = read_answers(
        write_lines(tmp_path / "a.jsonl", [answer(one, "Red?", f"{n}") for n, one in enumerate(ids)])
    )
    return join(answers, keys, lambda one: one.question_id, "a.jsonl")


def test_answers_follow_the_questions(tmp_path):
    assert [one.text for one in joined(tmp_path, "cab", ["a", "b", "c"])] == ["1", "2", "0"]
    # A question that occurs twice has two answers, in the order of the file.
    assert [one.text for one in joined(tmp_path, "aba", ["a", "a", "b"])] == ["0", "2", "1"]


@pytest.mark.parametrize(
    "ids, keys, message",
    [
        ("aba", "ab", r"2 answers to a question that occurs once: .*line 1 .*line 3 .*Remove the doubled"),
        ("aaa", "aa", "3 answers to a question that occurs 2 times"),
        ("a", "abcde", "4 of 5 questions have no answer. The first: 'b', 'c', 'd', ...*Continue the run"),
        ("a", "aa", "1 of 1 questions have no answer"),
        ("abx", "ab", "1 of 3 answers belong to no question .*line 3, 'question_id' 'x'.*the same question file"),
    ],
)
def test_doubled_missing_and_strange_ids_are_refused(tmp_path, ids, keys, message):
    with pytest.raises(DataError, match=message):
        joined(tmp_path, ids, list(keys))
