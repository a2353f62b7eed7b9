"""POPE by hand: the rule for an answer, the five metrics, files that do not belong to each other."""

import json

import pytest

from denserc.evaluation.mllm import PopeCounts, evaluate_pope
from denserc.evaluation.mllm.pope import is_yes, line_count_note, pope_files, read_pope, split_of
from denserc.structures import DataError
from tests.evaluation.mllm.files import INSTRUCTION, write_lines

LABELS = {
    "random": [
        ("a.jpg", "Is there a cat?", "yes"),
        ("a.jpg", "Is there a dog?", "no"),
        ("b.jpg", "Is there a cup?", "no"),
    ],
    "popular": [("a.jpg", "Is there a cat?", "yes"), ("b.jpg", "Is there a car?", "no")],
}


@pytest.mark.parametrize(
    "text, yes",
    [
        ("Yes", True),
        ("No", False),
        ("no, there is not", False),
        ("No, there is a cat", False),  # the comma is removed before words are compared
        ("There is not a cat", False),
        ("There is a cat. No dog", True),  # first sentence only
        (". no", True),
        ("", True),  # an empty answer is a yes
        ("NO", True),  # three spellings count, and this is none of them
        ("nothing", True),
        ("Not", True),
        ("no\nyes", True),  # words end at spaces only
        ("Yes no", False),
    ],
)
def test_the_rule_for_an_answer(text, yes):
    assert is_yes(text) is yes


def test_metrics_by_hand():
    truth = [True] * 6 + [False] * 4
    answers = [True] * 4 + [False] * 2 + [True] * 1 + [False] * 3
    counts = PopeCounts.of(truth, answers)
    assert (counts.true_yes, counts.false_no, counts.false_yes, counts.true_no) == (4, 2, 1, 3)
    assert counts.percent() == pytest.approx({
        "F1": 100 * 8 / 11, "accuracy": 70, "precision": 80, "recall": 100 * 4 / 6, "yes_ratio": 50, "questions": 10,
    })  # fmt: skip


def test_a_model_that_always_says_no_has_no_f1():
    percent = PopeCounts.of([True, False], [False, False]).percent()
    assert (percent["F1"], percent["precision"], percent["accuracy"], percent["yes_ratio"]) == (0, 0, 50, 0)


@pytest.fixture
def files(tmp_path):
    """POPE's files, LLaVA's question file with ids through all splits, and answers, all but one of them right."""
    questions, answers = [], []
    for split, its in LABELS.items():
        lines = [{"question_id": n, "image": i, "text": t, "label": y} for n, (i, t, y) in enumerate(its, start=1)]
        write_lines(tmp_path / f"coco_pope_{split}.json", lines)
        for image, text, label in its:
            question = {"question_id": len(questions), "image": image, "text": text + INSTRUCTION, "category": split}
            answers.append({"question_id": len(questions), "prompt": question["text"], "text": label.capitalize()})
            questions.append(question)
    answers[0]["text"] = "no"
    write_lines(tmp_path / "questions.jsonl", questions)
    write_lines(tmp_path / "answers.jsonl", answers[::-1])  # any order
    return tmp_path


def evaluate(folder):
    return evaluate_pope(folder / "answers.jsonl", [folder], folder / "questions.jsonl")


def test_splits_are_scored_apart_and_their_f1_is_averaged(files):
    results = evaluate(files)
    assert list(results) == ["pope_random", "pope_popular", "pope"]
    assert results["pope_random"]["accuracy"] == pytest.approx(200 / 3)
    assert (results["pope_random"]["F1"], results["pope_popular"]["F1"], results["pope"]["F1"]) == (0, 100, 50)


def test_one_file_of_pope_is_its_own_question_file(tmp_path):
    its = [{"question_id": 1, "image": "a.jpg", "text": "Is there a cat?", "label": "yes"}]
    write_lines(tmp_path / "coco_pope_random.json", its)
    write_lines(tmp_path / "a.jsonl", [{"question_id": 1, "prompt": its[0]["text"], "text": "Yes"}])
    file = tmp_path / "coco_pope_random.json"
    for questions in (None, file):
        assert evaluate_pope(tmp_path / "a.jsonl", [file], questions)["pope_random"]["F1"] == 100


def change(path, line, **fields):
    lines = [json.loads(one) for one in path.read_text().splitlines()]
    lines[line].update(fields)
    write_lines(path, lines)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda f: change(f / "coco_pope_random.json", 1, label="nein"),
            r"line 2: 'label' is 'nein'; expected is 'yes'",
        ),
        (lambda f: change(f / "questions.jsonl", 1, category="rare"), r"line 2: 'category' is 'rare'; the files given"),
        (lambda f: change(f / "questions.jsonl", 1, category="popular"), "2,910 lines; POPE's present one has 3,000"),
        (lambda f: change(f / "questions.jsonl", 0, image="c.jpg"), r"line 1 asks .* about c.jpg, and .* about a.jpg"),
        (lambda f: change(f / "answers.jsonl", 0, question_id=9), r"1 of 5 answers belong to no question .* line 1"),
        (
            lambda f: change(f / "answers.jsonl", 0, prompt="Is it?"),
            r"1 of 5 answers belong to no question .* 'Is it\?'",
        ),
        (lambda f: (f / "coco_pope_popular.json").write_text(""), "coco_pope_popular.json is empty"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(files, spoil, message):
    spoil(files)
    with pytest.raises(DataError, match=message):
        evaluate(files)


def test_several_files_need_the_question_file(files):
    with pytest.raises(DataError, match="use the same ids. Give the question file"):
        evaluate_pope(files / "answers.jsonl", [files])


def test_files_of_one_split_are_given_once(files):
    with pytest.raises(DataError, match="Two of the files are of the split 'random'"):
        pope_files([files, files / "coco_pope_random.json"])
    (files / "empty").mkdir()
    with pytest.raises(DataError, match="none of POPE's files"):
        pope_files([files / "empty"])


def test_names_of_splits():
    names = ("coco_pope_random.json", "coco_pope_adversarial.json", "scenes_popular.json", "pope_mine.jsonl")
    assert [split_of(name) for name in names] == ["random", "adversarial", "popular", "mine"]


def test_labels_are_read(files):
    labels = read_pope(files / "coco_pope_random.json")
    assert [one.yes for one in labels] == [True, False, False]
    assert labels[1].question.question_id == "2" and labels[1].question.raw_id == 2


def test_line_counts_name_the_version():
    assert line_count_note("random", 2910) == "random: 2,910 questions, the old file, LLaVA's figures are of it"
    assert "LLaVA's figures are of 2,910" in line_count_note("random", 3000)
    assert line_count_note("random", 7) == "random: 7 questions, as in no published file"
    assert line_count_note("mine", 7) == ""
