"""Damaged files of LLaVA's benchmarks: each is named with line or entry, and nothing else is raised."""

import json
import math

import pytest

from denserc.evaluation.mllm import read_answers, read_questions
from denserc.evaluation.mllm.gqa import read_gqa
from denserc.evaluation.mllm.mme import read_benchmark, read_results
from denserc.evaluation.mllm.pope import read_pope
from denserc.evaluation.mllm.textvqa import read_textvqa
from denserc.structures import DataError

QUESTION = {"question_id": 1, "image": "a.jpg", "text": "Is it red?"}
ANSWER = {"question_id": 1, "prompt": "Is it red?", "text": "yes"}
LABEL = {**QUESTION, "label": "yes"}
GQA = {"isBalanced": True, "question": "Is it red?", "answer": "yes", "types": {"structural": "verify"}}
TEXTVQA = {"image_id": "a", "question": "What?", "answers": ["x"] * 10}
NO_TEXT = (None, 3, True, math.nan, [], {}, ["x"])
NO_NAME = (None, True, 1.5, math.nan, [], {}, "")
LINES = [
    *[(read_questions, QUESTION, field, new) for field in ("image", "text") for new in NO_TEXT],
    *[(read_questions, QUESTION, "category", new) for new in NO_TEXT[1:]],
    *[(read_answers, ANSWER, field, new) for field in ("prompt", "text") for new in NO_TEXT],
    *[(read, one, "question_id", new) for read, one in ((read_questions, QUESTION), (read_answers, ANSWER))
      for new in NO_NAME],
    *[(read_pope, LABEL, "label", new) for new in (*NO_TEXT, "", "Yes", "maybe")],
]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "one", "field", "new"), LINES, ids=lambda value: getattr(value, "__name__", repr(value))[:30]
)
def test_damaged_lines_are_named(tmp_path, read, one, field, new):
    file = tmp_path / "a.jsonl"
    for wrong in ({**one, field: new}, {key: value for key, value in one.items() if key != field}):
        if field == "category" and field not in wrong:
            continue
        file.write_text(f"{json.dumps(one)}\n\n{json.dumps(wrong)}\n")
        with pytest.raises(DataError, match=rf"a\.jsonl, line 3: .*'{field}'"):
            read(file)


@pytest.mark.parametrize("read", [read_questions, read_answers, read_pope])
@pytest.mark.parametrize("line", ["3", "null", "[]", "{", "x", "{'a': 1}", "[" * 99_999, "1" * 5000, "{} {}"])
def test_lines_that_are_no_object_are_named(tmp_path, read, line):
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps({**LABEL, **ANSWER})}\n{line}\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        read(file)


@pytest.mark.parametrize(
    "wrong",
    [
        *NO_TEXT,
        *[{**GQA, field: new} for field in ("question", "answer", "types") for new in NO_TEXT],
        *[{**GQA, "types": {"structural": new}} for new in NO_TEXT],
        *[{key: value for key, value in GQA.items() if key != field} for field in ("question", "answer", "types")],
    ],
    ids=lambda value: getattr(value, "__name__", repr(value))[:40],
)
def test_damaged_questions_of_gqa_are_named(tmp_path, wrong):
    (tmp_path / "a.json").write_text(json.dumps({"1": GQA, "2": wrong}))
    with pytest.raises(DataError, match=r"a\.json, question 2"):
        read_gqa(tmp_path / "a.json")


@pytest.mark.parametrize(
    "wrong",
    [
        *NO_TEXT,
        *[{**TEXTVQA, "image_id": new} for new in NO_NAME],
        *[{**TEXTVQA, "question": new} for new in NO_TEXT],
        *[{**TEXTVQA, "answers": new} for new in (*NO_TEXT, ["x"] * 9, [*["x"] * 9, None], "x" * 10)],
        *[{key: value for key, value in TEXTVQA.items() if key != field} for field in TEXTVQA],
    ],
    ids=lambda value: getattr(value, "__name__", repr(value))[:40],
)
def test_damaged_questions_of_textvqa_are_named(tmp_path, wrong):
    (tmp_path / "a.json").write_text(json.dumps({"data": [TEXTVQA, wrong]}))
    with pytest.raises(DataError, match=r"a\.json, 'data'.1.:"):
        read_textvqa(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_gqa, read_textvqa])
@pytest.mark.parametrize("content", ["", "[]", "{}", "3", "null", '{"data": {}}', "[" * 99_999, "<html>", "{'a': 1}"])
def test_files_of_another_kind_are_named(tmp_path, read, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("row", ["x", "a\tb\tc\td\te", "\t", "Is it?\tmaybe", "Is it?\t1"])
def test_damaged_rows_of_mme_are_named(tmp_path, row):
    (tmp_path / "color").mkdir()
    (tmp_path / "color" / "a.txt").write_text(f"Is it red?\tYes\n{row}\n")
    (tmp_path / "color.txt").write_text(f"a.jpg\tIs it red?\tYes\tyes\na.jpg\t{row}\n")
    for read, name in ((read_benchmark, r"color/a\.txt"), (read_results, r"color\.txt")):
        if row.strip() or read is read_results:
            with pytest.raises(DataError, match=f"{name}, line 2"):
                read(tmp_path)


def test_rows_of_mme_that_are_no_text_are_named(tmp_path):
    (tmp_path / "color.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"color\.txt is not UTF-8"):
        read_results(tmp_path)
