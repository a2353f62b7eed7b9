"""LLaVA's answer files scored without a model (`denserc eval llava`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluation.mllm import evaluate_gqa, evaluate_mme, evaluate_pope, evaluate_textvqa
from ..evaluation.mllm.mme import COGNITION, PERCEPTION, SUBTASKS
from ..evaluation.mllm.pope import line_count_note
from ..structures import ConfigurationError
from ..structures.files import write_json, write_text
from ..visualization import Better, Column, ResultTable

BENCHMARKS = ("pope", "gqa", "textvqa", "mme")
Results = Mapping[str, Mapping[str, float]]

_QUESTIONS = Column("questions", Better.NEITHER, digits=0)


def score(
    benchmark: str,
    answers: str | Path,
    annotations: Sequence[str | Path] = (),
    questions: str | Path | None = None,
) -> dict[str, dict[str, float]]:
    """Score answers to a benchmark by LLaVA's rules.

    Args:
        benchmark: One of BENCHMARKS.
        answers: Answer file of LLaVA; for MME also a folder of results in its own form.
        annotations: The benchmark's own files: several or a folder for POPE, one file or folder otherwise.
        questions: Question file that was answered; POPE only.

    Returns:
        {task: {metric: percent}}; MME's "score", "perception" and "cognition" are sums.

    Raises:
        ConfigurationError: The benchmark does not exist or has another number of files.
        DataError: A file breaks its format, or files do not belong to each other.
    """
    if benchmark not in BENCHMARKS:
        raise ConfigurationError(f"The benchmark is {benchmark!r}; legal are {', '.join(BENCHMARKS)}.")
    if questions is not None and benchmark != "pope":
        raise ConfigurationError(f"--questions belongs to pope; {benchmark} needs --annotations only. Leave it out.")
    if benchmark == "mme" and not annotations:
        return evaluate_mme(answers)
    if not annotations:
        raise ConfigurationError(f"{benchmark} needs --annotations: the benchmark's own file.")
    if benchmark == "pope":
        return evaluate_pope(answers, annotations, questions)
    if len(annotations) > 1:
        raise ConfigurationError(f"{benchmark} has one file of annotations; {len(annotations)} were given.")
    evaluate = {"gqa": evaluate_gqa, "textvqa": evaluate_textvqa, "mme": evaluate_mme}[benchmark]
    return evaluate(answers, annotations[0])


def table_of(benchmark: str, results: Results) -> ResultTable:
    """The results as a table, with a note on what the figures compare with."""
    return _TABLES[benchmark](results)


def save(folder: str | Path, benchmark: str, results: Results) -> None:
    """Write BENCHMARK_results.json and BENCHMARK_results.md."""
    table = table_of(benchmark, results)
    write_json(Path(folder) / f"{benchmark}_results.json", {"metrics": results, "note": table.note}, indent=2)
    write_text(Path(folder) / f"{benchmark}_results.md", table.to_markdown() + "\n")


def _pope_table(results: Results) -> ResultTable:
    names = ("F1", "accuracy", "precision", "recall")
    columns = [
        *(Column(name, Better.NEITHER, 2) for name in names),
        Column("yes_ratio", Better.NEITHER, 2, "yes ratio"),
    ]
    rows = {task.removeprefix("pope_"): row for task, row in results.items() if task != "pope"}
    if "pope" in results:
        rows["mean of splits"] = results["pope"]
    notes = [line_count_note(split, int(row["questions"])) for split, row in rows.items() if "questions" in row]
    note = "LLaVA's published POPE figures are F1. " + "; ".join(filter(None, notes))
    return ResultTable([*columns, _QUESTIONS], rows, corner="POPE, percent", note=note.strip())


def _gqa_table(results: Results) -> ResultTable:
    columns = [Column(name, Better.NEITHER, 2) for name in ("accuracy", "binary", "open")]
    return ResultTable([*columns, _QUESTIONS], {"testdev balanced": results["gqa"]}, corner="GQA, percent")


def _textvqa_table(results: Results) -> ResultTable:
    row = results["textvqa"]
    columns = [
        Column("accuracy", Better.NEITHER, 2),
        _QUESTIONS,
        Column("with_ocr", Better.NEITHER, 0, "prompts with OCR words"),
    ]
    if row["with_ocr"] == row["questions"]:
        note = "All prompts have OCR words, as those of LLaVA-1.5's published 58.2 (7B)."
    elif not row["with_ocr"]:
        note = "No prompt has OCR words; the figure does not compare with LLaVA-1.5's published 58.2, which has them."
    else:
        note = "Some prompts have OCR words and some have none; the figure compares with no published one."
    return ResultTable(columns, {"validation": row}, corner="TextVQA, percent", note=note)


def _mme_table(results: Results) -> ResultTable:
    columns = [
        Column("score", Better.NEITHER, 2),
        Column("acc", Better.NEITHER, 2),
        Column("acc_plus", Better.NEITHER, 2, "acc+"),
        Column("other", Better.NEITHER, 0, "neither yes nor no"),
        _QUESTIONS,
    ]
    rows = {one: results[f"mme_{one}"] for one in SUBTASKS if f"mme_{one}" in results}
    rows |= {name: {"score": total} for name, total in results["mme"].items()}
    absent = [one for one in SUBTASKS if f"mme_{one}" not in results]
    note = f"perception: at most {200 * len(PERCEPTION)}; cognition: at most {200 * len(COGNITION)}."
    if absent:
        note += f" Without {', '.join(absent)}: a sum that lacks a subtask is not given."
    return ResultTable(columns, rows, corner="MME", note=note)


_TABLES = {"pope": _pope_table, "gqa": _gqa_table, "textvqa": _textvqa_table, "mme": _mme_table}
