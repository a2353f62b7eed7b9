"""The command that scores LLaVA's answers: tables, files, options, and no transformers."""

import json
import os
import subprocess
import sys

import pytest

from denserc import cli
from denserc.structures import ConfigurationError
from denserc.tools.score_llava import score, table_of
from tests.evaluation.mllm.files import INSTRUCTION, answer, write_lines
from tests.paths import ROOT


@pytest.fixture
def gqa(tmp_path):
    """(answers, annotations): one of two right."""
    questions = {
        name: {"question": "What is it?", "answer": "dog", "types": {"structural": "query"}} for name in ("1", "2")
    }
    (tmp_path / "gqa.json").write_text(json.dumps(questions))
    lines = [answer(name, "What is it?", text) for name, text in (("2", "Dog."), ("1", "cat"))]
    return write_lines(tmp_path / "a.jsonl", lines), tmp_path / "gqa.json"


def test_the_command_prints_a_table_and_writes_results(gqa, tmp_path, capsys):
    answers, annotations = gqa
    words = (
        f"eval llava --benchmark gqa --answers {answers} --annotations {annotations} --output-dir {tmp_path / 'out'}"
    )
    assert cli.main(words.split()) == 0
    out = capsys.readouterr().out
    assert "GQA, percent" in out and "50.00" in out and "–" in out  # no binary question
    written = json.loads((tmp_path / "out" / "gqa_results.json").read_text())
    assert written["metrics"]["gqa"] == {"accuracy": 50, "binary": None, "open": 50, "questions": 2}
    assert "| testdev balanced |" in (tmp_path / "out" / "gqa_results.md").read_text()
    assert cli.main([*words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written["metrics"]


def test_errors_end_with_two_and_one_line(gqa, tmp_path, capsys):
    answers, annotations = gqa
    write_lines(answers, [answer("1", "What is it?", "cat")])
    words = f"eval llava --benchmark gqa --answers {answers} --annotations {annotations}"
    assert cli.main(words.split()) == 2
    assert "error: " in (err := capsys.readouterr().err) and "1 of 2 questions have no answer" in err


def test_scoring_imports_no_transformers(gqa):
    code = (
        "import sys; from denserc.cli import main; "
        f"main({['eval', 'llava', '--benchmark', 'gqa', '--answers', str(gqa[0]), '--annotations', str(gqa[1])]}); "
        "sys.exit('transformers' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "benchmark, annotations, questions, message",
    [
        ("vqav2", ["x"], None, "legal are pope, gqa, textvqa, mme"),
        ("gqa", [], None, "gqa needs --annotations"),
        ("gqa", ["x", "y"], None, "gqa has one file of annotations; 2 were given"),
        ("gqa", ["x"], "q", "--questions belongs to pope"),
    ],
)
def test_other_files_are_refused(benchmark, annotations, questions, message):
    with pytest.raises(ConfigurationError, match=message):
        score(benchmark, "a", annotations, questions)


def test_notes_name_what_a_figure_compares_with():
    split = dict.fromkeys(("F1", "accuracy", "precision", "recall", "yes_ratio"), 50.0)
    pope = {
        "pope_random": split | {"questions": 3000},
        "pope_popular": split | {"questions": 3000},
        "pope": {"F1": 50.0},
    }
    table = table_of("pope", pope)
    assert table.note.startswith("LLaVA's published POPE figures are F1.") and "figures are of 2,910" in table.note
    assert list(table.rows) == ["random", "popular", "mean of splits"]

    notes = [
        table_of("textvqa", {"textvqa": {"accuracy": 1.0, "questions": 4, "with_ocr": count}}).note
        for count in (4, 0, 1)
    ]
    assert "All prompts have OCR words" in notes[0] and "No prompt" in notes[1] and "Some prompts" in notes[2]

    subtask = {"acc": 75.0, "acc_plus": 50.0, "score": 125.0, "other": 0, "questions": 4}
    sums = {"perception": float("nan"), "cognition": float("nan")}
    table = table_of("mme", {"mme": sums, "mme_count": subtask})
    assert "Without existence, position" in table.note and list(table.rows) == ["count", "perception", "cognition"]


def test_mme_results_need_no_annotations(tmp_path):
    rows = [("a.png", f"Red?{INSTRUCTION}".split("\n")[0], truth, "yes") for truth in ("Yes", "No")]
    (tmp_path / "count.txt").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert score("mme", tmp_path)["mme_count"]["score"] == 50
