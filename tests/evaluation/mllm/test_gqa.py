"""GQA by hand: equality after LLaVA's conversion, binary and open, balanced questions only."""

import json
import math

import pytest

from denserc.evaluation.mllm import evaluate_gqa
from denserc.evaluation.mllm.gqa import prediction_of, read_gqa
from denserc.structures import DataError
from tests.evaluation.mllm.files import answer, write_lines


def question(text, right, structural, **fields):
    return {
        "imageId": "n1",
        "question": text,
        "answer": right,
        "isBalanced": True,
        "types": {"structural": structural},
    } | fields


QUESTIONS = {
    "201": question("What is it?", "dog", "query"),
    "202": question("Is it red?", "yes", "verify"),
    "203": question("Left or right?", "left", "choose"),
    "204": question("What color?", "red", "query"),
    "205": question("Unbalanced?", "yes", "verify", isBalanced=False),
}


@pytest.mark.parametrize(
    "text, prediction",
    [
        ("Dog.", "dog"),
        ("dog...", "dog"),
        (" dog", " dog"),
        ("dog. ", "dog. "),
        ("A dog", "a dog"),
        ("t-shirt", "t-shirt"),
    ],
)
def test_conversion_of_an_answer(text, prediction):
    assert prediction_of(text) == prediction


def run(tmp_path, texts, questions=QUESTIONS):
    (tmp_path / "gqa.json").write_text(json.dumps(questions))
    lines = [answer(name, questions[name]["question"], text) for name, text in texts.items() if name in questions]
    return evaluate_gqa(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "gqa.json")["gqa"]


def test_accuracy_by_kind(tmp_path):
    results = run(tmp_path, {"204": "Red.", "203": "right", "202": "Yes", "201": "cat"})
    assert results == {"accuracy": 50, "binary": 50, "open": 50, "questions": 4}


def test_a_kind_without_questions_is_nan(tmp_path):
    results = run(tmp_path, {"201": "dog"}, {"201": QUESTIONS["201"]})
    assert (results["accuracy"], results["open"]) == (100, 100) and math.isnan(results["binary"])


def test_missing_answers_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"1 of 4 questions have no answer. The first: \('204', 'What color\?'\)"):
        run(tmp_path, {"201": "cat", "202": "yes", "203": "left"})


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "is not a file of GQA"),
        ({}, "is not a file of GQA"),
        ({"1": {}}, "question 1, 'types': there is no 'structural'"),
        ({"1": question("x", None, "query")}, "question 1: 'answer' is None"),
        ({"1": question("x", "y", "query", isBalanced=False)}, "no balanced question"),
    ],
)
def test_a_file_that_breaks_the_format_is_named(tmp_path, content, message):
    (tmp_path / "gqa.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_gqa(tmp_path / "gqa.json")


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "gqa.json").write_text("")
    with pytest.raises(DataError, match="gqa.json is empty"):
        read_gqa(tmp_path / "gqa.json")
