"""MME by hand: the rule for an answer, acc and acc+, sums, both forms of files."""

import math

import pytest

from denserc.evaluation.mllm import evaluate_mme
from denserc.evaluation.mllm.mme import SUBTASKS, read_answer, subtask_score
from denserc.structures import DataError
from tests.evaluation.mllm.files import INSTRUCTION, answer, write_lines


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Yes", "yes"), ("NO.", "no"), ("Yes, it is", "yes"), (" yes", "yes"), ("not", "no"), ("know", "no"),
        ("It is yes", "other"), ("", "other"), ("y", "other"), ("a no", "no"), ("The answer is no", "other"),
    ],
)  # fmt: skip
def test_the_rule_for_an_answer(text, expected):
    assert read_answer(text) == expected


def test_acc_and_acc_plus_by_hand():
    pairs = [[("yes", "Yes"), ("no", "no")], [("yes", "yes"), ("no", "yes")], [("yes", "perhaps"), ("no", "yes")]]
    expected = {"acc": 50, "acc_plus": 100 / 3, "score": 250 / 3, "other": 1, "questions": 6}
    assert subtask_score(pairs) == pytest.approx(expected)


@pytest.fixture
def benchmark(tmp_path):
    """Every subtask with two pictures; some have the text files in a folder of their own, as MME's release."""
    for subtask in SUBTASKS:
        folder = tmp_path / "MME" / subtask / ("questions_answers_YN" if subtask in ("scene", "posters") else "")
        folder.mkdir(parents=True)
        for picture in ("0001", "0002"):
            rows = [("Is it red? Please answer yes or no.", "Yes"), ("Is it blue?  Please answer yes or no.", "No")]
            (folder / f"{picture}.txt").write_text("".join(f"{q}\t{a}\n" for q, a in rows))
    return tmp_path / "MME"


def answers_of(subtasks=SUBTASKS):
    lines = []
    for subtask in subtasks:
        for picture in ("0001.png", "0002.jpg"):
            name = f"{subtask}/images/{picture}" if subtask == "scene" else f"{subtask}/{picture}"
            lines += [answer(name, "Is it red?", "Yes"), answer(name, "Is it blue?", "No", "")]
    lines[1]["text"] = "yes"
    return lines


def test_answers_of_llava_are_summed(benchmark, tmp_path):
    results = evaluate_mme(write_lines(tmp_path / "a.jsonl", answers_of()), benchmark)
    assert results["mme_existence"] == {"acc": 75, "acc_plus": 50, "score": 125, "other": 0, "questions": 4}
    assert results["mme"] == {"perception": 9 * 200 + 125, "cognition": 4 * 200}
    assert list(results) == ["mme", *(f"mme_{one}" for one in SUBTASKS)]


def test_results_in_mmes_form_have_the_same_score(benchmark, tmp_path):
    lines = answers_of()
    for subtask in SUBTASKS:
        its = [line for line in lines if line["question_id"].startswith(f"{subtask}/")]
        rows = [
            (line["question_id"].split("/")[-1], line["prompt"].split("\n")[0], truth, line["text"])
            for line, truth in zip(its, ["Yes", "No", "Yes", "No"], strict=True)
        ]
        (tmp_path / f"{subtask}.txt").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert evaluate_mme(tmp_path) == evaluate_mme(write_lines(tmp_path / "a.jsonl", lines), benchmark)


def test_a_sum_without_all_its_subtasks_is_not_given(benchmark, tmp_path):
    for file in (benchmark / "OCR").iterdir():
        file.unlink()
    (benchmark / "OCR").rmdir()
    lines = answers_of([one for one in SUBTASKS if one != "OCR"])
    results = evaluate_mme(write_lines(tmp_path / "a.jsonl", lines), benchmark)
    assert math.isnan(results["mme"]["perception"]) and results["mme"]["cognition"] == 800
    with pytest.raises(DataError, match="4 of 56 answers belong to no question"):
        evaluate_mme(write_lines(tmp_path / "a.jsonl", answers_of()), benchmark)


def test_answers_need_the_benchmark(tmp_path):
    with pytest.raises(DataError, match="Give MME_Benchmark_release_version with --annotations"):
        evaluate_mme(write_lines(tmp_path / "a.jsonl", answers_of()))
    with pytest.raises(DataError, match="no folder of a subtask"):
        evaluate_mme(tmp_path / "a.jsonl", tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "a.png\tRed?\tYes\n",
            r"count.txt, line 1: 3 columns, .*expected are 4 with tabs.*Remove tabs and line breaks",
        ),
        ("a.png\tRed?\tperhaps\tYes\n", "count.txt, line 1: the right answer is 'perhaps'; expected is Yes or No"),
        ("a.png\tRed?\tYes\tYes\n", "line 1: expected are two adjacent questions .* here are 1 about a"),
        ("a.png\tRed?\tYes\tYes\nb.png\tRed?\tNo\tYes\n", "here are 2 about a, b. Restore the missing line"),
        ("", "count.txt is empty"),
    ],
)
def test_results_that_break_the_format_are_named(tmp_path, content, message):
    (tmp_path / "count.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        evaluate_mme(tmp_path)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(DataError, match="has no results of MME; expected are existence.txt"):
        evaluate_mme(tmp_path)


def test_questions_are_matched_without_their_instructions(benchmark, tmp_path):
    lines = answers_of()
    lines[0]["prompt"] = f"Is it red?{INSTRUCTION} Please answer yes or no."
    assert evaluate_mme(write_lines(tmp_path / "a.jsonl", lines), benchmark)["mme"]["cognition"] == 800
    lines[0]["prompt"] = "Is it green?"
    with pytest.raises(DataError, match=r"'question_id' 'existence/0001.png', 'prompt' 'Is it green\?'"):
        evaluate_mme(write_lines(tmp_path / "a.jsonl", lines), benchmark)
