"""The files are read and scored by the code of the full size."""

import hashlib
import json

import pytest

from denserc.evaluation.mllm.answers import read_questions
from denserc.evaluation.mllm.gqa import evaluate_gqa, read_gqa
from denserc.evaluation.mllm.mme import evaluate_mme, read_benchmark
from denserc.evaluation.mllm.pope import SPLITS, evaluate_pope, read_pope
from denserc.llava.conversations import read_conversations
from denserc.miniature.llava.write_questions import QuestionSizes, write_questions

SIZES = QuestionSizes(text=4, train=5, test=6)
OPPOSITE = {"yes": "no", "no": "yes"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("questions")
    return root, write_questions(root, sizes=SIZES)


def answer(root, name, truths):
    """An answer file for a question file."""
    file = root / f"{name}_answers.jsonl"
    lines = [
        {"question_id": one.raw_id, "prompt": one.text, "text": truth}
        for one, truth in zip(read_questions(root / f"{name}.jsonl"), truths, strict=True)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_training_files_pass_the_rules(written):
    root, counts = written
    for name, pictures in (("text", 0), ("captions", 5), ("instruct", 5)):
        found = read_conversations([root / f"{name}.json"], root)
        assert len(found) == counts[name]
        assert len({one.image for one in found} - {None}) == pictures
    assert counts["captions"] == 5 and counts["instruct"] > 40


def test_pope_has_both_answers_equally_often_and_is_scored(written):
    root, counts = written
    truths = []
    for split in SPLITS:
        labels = read_pope(root / "pope" / f"miniature_pope_{split}.json")
        assert sum(label.yes for label in labels) * 2 == len(labels) > 0
        truths += ["yes" if label.yes else "no" for label in labels]
    assert len(truths) == counts["pope"]
    for given, accuracy in ((truths, 100), ([OPPOSITE[one] for one in truths], 0)):
        scores = evaluate_pope(answer(root, "pope", given), [root / "pope"], root / "pope.jsonl")
        assert [scores[f"pope_{split}"]["accuracy"] for split in SPLITS] == [accuracy] * 3


def test_gqa_is_scored(written):
    root, counts = written
    truths = [one.answer for one in read_gqa(root / "gqa.json")]
    assert len(truths) == counts["gqa"]
    assert evaluate_gqa(answer(root, "gqa", truths), root / "gqa.json")["gqa"]["accuracy"] == 100
    truths[0] = "nothing"
    expected = 100 * (1 - 1 / len(truths))
    assert evaluate_gqa(answer(root, "gqa", truths), root / "gqa.json")["gqa"]["accuracy"] == pytest.approx(expected)


def test_mme_is_scored(written):
    root, counts = written
    right = {one.key: one.truth for one in read_benchmark(root / "mme")}
    asked = read_questions(root / "mme.jsonl")
    keys = [(*one.question_id.removesuffix(".png").split("/"), one.text) for one in asked]
    scores = evaluate_mme(answer(root, "mme", [right[key] for key in keys]), root / "mme")
    assert len(asked) == counts["mme"]
    assert {name: one["score"] for name, one in scores.items() if name != "mme"} == dict.fromkeys(
        ("mme_existence", "mme_count", "mme_position", "mme_color"), 200
    )


def test_same_seed_same_files(written, tmp_path):
    write_questions(tmp_path, sizes=SIZES)
    names = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(names) > 20
    for name in names:
        digests = {hashlib.sha256((root / name).read_bytes()).hexdigest() for root in (tmp_path, written[0])}
        assert len(digests) == 1, name
