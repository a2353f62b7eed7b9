"""TextVQA by hand: the normalizer's rules, leave-one-out accuracy, the join by picture and question."""

import json

import pytest

from denserc.evaluation.mllm import evaluate_textvqa
from denserc.evaluation.mllm.answers import Answer
from denserc.evaluation.mllm.evalai import normalize
from denserc.evaluation.mllm.textvqa import question_of, read_textvqa, soft_accuracy
from denserc.structures import DataError
from tests.evaluation.mllm.files import INSTRUCTION, answer, write_lines


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Coca Cola", "coca cola"),
        ("red, green", "red green"),  # commas and question marks are removed first
        ("1,000", "1000"),
        ("stop?", "stop"),
        ("7-up", "7 up"),  # a mark between letters is a space
        ("a - b", "b"),  # beside a space it is removed; so is the article
        ("x/y z", "x y z"),
        ("(red)", "red"),
        ("U.S.", "us"),
        ("3.5", "3.5"),  # a period before a digit stays
        ("3.5.", "3.5"),
        (".5", ".5"),
        ("the Two dogs", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("an apple", "apple"),
        ("dont", "don't"),
        ("youre", "you're"),
        ("shouldnt've", "shouldn't've"),
        ("it's", "it 's"),
        ("somebody'd", "somebodyd"),
        ("two\nlines\there", "2 lines here"),
        ("", ""),
    ],
)
def test_rules_of_the_normalizer(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize("matches, expected", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_leave_one_out_by_hand(matches, expected):
    """With one match: nine subsets hold it, a third each; one does not. 9 / 10 * 1 / 3 = 0.3, and so on."""
    answers = ["Stop."] * matches + [f"other {n}" for n in range(10 - matches)]
    assert soft_accuracy("stop", answers) == pytest.approx(expected)


OCR = "\nReference OCR token: STOP, MAIN"


@pytest.mark.parametrize(
    "prompt",
    [
        f"What IS it?{INSTRUCTION}",
        f"What IS it?{OCR}{INSTRUCTION}",
        f"{OCR.strip()}\nWhat IS it?{INSTRUCTION}",
        "OCR tokens: STOP. Question: What IS it? Short answer:",
    ],
)
def test_the_question_in_a_prompt(prompt):
    assert question_of(Answer("a.jsonl, line 1", "x", prompt, "", {})) == "what is it?"


@pytest.mark.parametrize("prompt", ["What is it?", f"What{OCR}\nis\nit?", "OCR tokens: none"])
def test_a_prompt_of_another_form_is_refused(prompt):
    with pytest.raises(DataError, match="a.jsonl, line 1: 'prompt' is .*one per line"):
        question_of(Answer("a.jsonl, line 1", "x", prompt, "", {}))


def entry(image_id, question, *answers):
    return {"image_id": image_id, "question": question, "answers": [*answers, *["?"] * (10 - len(answers))]}


def run(tmp_path, entries, answers):
    (tmp_path / "val.json").write_text(json.dumps({"data": entries}))
    return evaluate_textvqa(write_lines(tmp_path / "a.jsonl", answers), tmp_path / "val.json")["textvqa"]


def test_answers_are_joined_by_picture_and_question(tmp_path):
    entries = [entry("p", "Which Sign?", *["stop"] * 4), entry("p", "which street?", *["main"] * 2)]
    answers = [answer("p", "which street?", "Main"), answer("p", "Which sign?", "STOP!", OCR + INSTRUCTION)]
    assert run(tmp_path, entries, answers) == pytest.approx({"accuracy": 80, "questions": 2, "with_ocr": 1})


def test_a_doubled_question_is_compared_with_its_last_entry(tmp_path):
    entries = [entry("p", "what?", *["stop"] * 4), entry("p", "What?", *["main"] * 4)]
    answers = [answer("p", "what?", "stop"), answer("p", "what?", "main")]
    assert run(tmp_path, entries, answers)["accuracy"] == 50
    with pytest.raises(DataError, match="no answer"):
        run(tmp_path, entries, answers[:1])


@pytest.mark.parametrize(
    "content, message",
    [
        ({"data": []}, "is not a file of TextVQA"),
        ([], "is not a file of TextVQA"),
        ({"data": [{"image_id": "p", "question": "x"}]}, r"'data'\[0\]: 'answers' is None.*The test split has none"),
        ({"data": [{"image_id": "p", "question": "x", "answers": ["a"]}]}, "expected are 10 texts"),
        ({"data": [{"question": "x", "answers": ["a"] * 10}]}, "there is no 'image_id'"),
    ],
)
def test_a_file_that_breaks_the_format_is_named(tmp_path, content, message):
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_textvqa(tmp_path / "val.json")
