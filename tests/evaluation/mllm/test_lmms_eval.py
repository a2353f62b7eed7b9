"""Our scorers against lmms-eval's functions: recorded outcomes, and the functions themselves where installed."""

import json

import pytest

from denserc.evaluation.mllm.evalai import normalize
from denserc.evaluation.mllm.gqa import prediction_of
from denserc.evaluation.mllm.mme import OTHER, read_answer, subtask_score
from denserc.evaluation.mllm.pope import PopeCounts, is_yes
from denserc.evaluation.mllm.textvqa import soft_accuracy
from tests.evaluation.mllm.lmms_cases import FILE, drawn_cases, outcomes

RECORDED = json.loads(FILE.read_text(encoding="utf-8"))
CASES, OUTCOMES = RECORDED["cases"], RECORDED["outcomes"]


def test_recorded_outcomes_are_those_of_the_installed_lmms_eval():
    pytest.importorskip("lmms_eval", reason="needs lmms-eval 0.7.3")
    assert drawn_cases() == CASES
    assert outcomes(CASES) == OUTCOMES


def test_normalizer_agrees():
    assert [normalize(text) for text in CASES["normalize"]] == OUTCOMES["normalize"]


def test_textvqa_agrees():
    scores = [soft_accuracy(case["answer"], case["answers"]) for case in CASES["textvqa"]]
    assert scores == pytest.approx(OUTCOMES["textvqa"], abs=1e-12)
    assert {0.0, 0.3, 0.6, 0.9, 1.0} <= {round(score, 6) for score in scores}  # every kind of case was drawn


def test_gqa_agrees_on_plain_words():
    assert [prediction_of(answer) == truth for answer, truth in CASES["gqa"]] == OUTCOMES["gqa"]
    assert 0 < sum(OUTCOMES["gqa"]) < len(OUTCOMES["gqa"])


def test_pope_agrees_on_single_words():
    truth = [right == "yes" for _, right in CASES["pope"]]
    counts = PopeCounts.of(truth, [is_yes(answer) for answer, _ in CASES["pope"]])
    ours = {"accuracy": counts.accuracy, "precision": counts.precision, "recall": counts.recall, "F1": counts.f1}
    assert ours == pytest.approx(OUTCOMES["pope"], abs=1e-12)


def test_mme_agrees():
    assert [read_answer(text) for text in CASES["mme_answers"]] == OUTCOMES["mme_answers"]
    rows = CASES["mme"]
    pairs = [[(truth.lower(), answer) for answer, truth, _ in rows[i : i + 2]] for i in range(0, len(rows), 2)]
    assert subtask_score(pairs)["score"] == pytest.approx(OUTCOMES["mme"], abs=1e-9)


def test_differences_are_those_of_the_documentation():
    truth = [right == "yes" for _, right in CASES["pope"]]
    counts = PopeCounts.of(truth, [is_yes(answer) for answer, _ in CASES["pope"]])
    assert OUTCOMES["pope_yes_ratio"] == pytest.approx(sum(truth) / len(truth))  # theirs counts the truth
    assert counts.yes_ratio != pytest.approx(OUTCOMES["pope_yes_ratio"])

    by_answer = {a: hit for (a, _), hit in zip(CASES["pope_sentences"], OUTCOMES["pope_sentences"], strict=True)}
    for answer in ("Yes.", "Yes, it is.", "", "There is a dog"):  # yes by LLaVA's rule; theirs requires equality
        assert is_yes(answer) and by_answer[answer] == 0

    pairs = dict(CASES["gqa_punctuation"])
    ours = [prediction_of(answer) == right for answer, right in pairs.items()]
    assert (ours, OUTCOMES["gqa_punctuation"]) == ([False, True, False, False], [True, True, True, False])

    assert OUTCOMES["mme_letters"] == ["yes", "no"]
    assert [read_answer(letter) for letter in CASES["mme_letters"]] == [OTHER, OTHER]
