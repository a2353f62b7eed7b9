"""GQA, testdev balanced: exact equality with the one answer, as LLaVA's conversion and the official script make it.

The official script's validity, plausibility and consistency need scene graphs and choices that version 1.2 lacks.
"""

from dataclasses import dataclass
from pathlib import Path

from ...structures import DataError
from ...structures.records import Record, read_json
from .answers import join, read_answers


@dataclass(frozen=True, slots=True)
class GqaQuestion:
    """One question of GQA's file.

    Args:
        question_id: Id as text.
        question: Text.
        answer: The one right answer, in small letters.
        is_open: Whether it asks for a word; otherwise it is a choice or yes and no.
    """

    question_id: str
    question: str
    answer: str
    is_open: bool


def prediction_of(text: str) -> str:
    """An answer as it is compared: without periods at its end, in small letters."""
    return text.rstrip(".").lower()


def read_gqa(path: str | Path) -> list[GqaQuestion]:
    """Read testdev_balanced_questions.json; questions that are not balanced do not count.

    Raises:
        DataError: The file is absent, empty, has no balanced question, or breaks the format.
    """
    content = read_json(path, "question file of GQA")
    if not isinstance(content, dict) or not content:
        raise DataError(
            f"{path} is not a file of GQA: expected is an object of questions by id, such as "
            "testdev_balanced_questions.json. The question file in JSON Lines goes to --questions of `denserc answer`."
        )
    questions = []
    for name, fields in content.items():
        record = Record(f"{path}, question {name}", fields if isinstance(fields, dict) else {})
        if record.fields.get("isBalanced", True):
            types = record.fields.get("types")
            kind = Record(f"{record.where}, 'types'", types if isinstance(types, dict) else {}).text("structural")
            questions.append(GqaQuestion(name, record.text("question"), record.text("answer"), kind == "query"))
    if not questions:
        raise DataError(f"{path} has no balanced question. Give testdev_balanced_questions.json.")
    return questions


def evaluate_gqa(answers: str | Path, annotations: str | Path) -> dict[str, dict[str, float]]:
    """Score answers to GQA.

    Args:
        answers: Answer file.
        annotations: testdev_balanced_questions.json.

    Returns:
        {"gqa": {"accuracy", "binary", "open" in percent, "questions"}}; nan for a group without questions.

    Raises:
        DataError: A file breaks its format, or the answers are to other questions.
    """
    questions = read_gqa(annotations)
    keys = [(one.question_id, one.question.strip()) for one in questions]
    joined = join(read_answers(answers), keys, lambda answer: (answer.question_id, answer.words), answers)
    right = [prediction_of(answer.text) == one.answer for one, answer in zip(questions, joined, strict=True)]
    is_open = [one.is_open for one in questions]
    return {
        "gqa": {
            "accuracy": _percent(right),
            "binary": _percent([hit for hit, of_open in zip(right, is_open, strict=True) if not of_open]),
            "open": _percent([hit for hit, of_open in zip(right, is_open, strict=True) if of_open]),
            "questions": len(questions),
        }
    }


def _percent(right: list[bool]) -> float:
    return 100 * sum(right) / len(right) if right else float("nan")
