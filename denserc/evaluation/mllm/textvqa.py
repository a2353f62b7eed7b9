"""TextVQA, validation: soft accuracy against ten answers.

LLaVA-1.5's published 58.2 is with a line of OCR words in each prompt ("Reference OCR token: ..."). Without it the same
model has about 46, so results name how many prompts have the line.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...structures import DataError
from ...structures.records import Record, read_json, short
from .answers import Answer, join, read_answers
from .evalai import normalize

OCR_LINE = "Reference OCR token:"
ANSWERS = 10


@dataclass(frozen=True, slots=True)
class TextVqaQuestion:
    """One question of TextVQA's file: picture, text and the ten answers of people."""

    image_id: str
    question: str
    answers: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Join with answers: LLaVA's question ids are TextVQA's image ids."""
        return self.image_id, self.question.lower()


def read_textvqa(path: str | Path) -> list[TextVqaQuestion]:
    """Read TextVQA_0.5.1_val.json.

    Raises:
        DataError: The file is absent, empty, or breaks the format.
    """
    content = read_json(path, "annotation file of TextVQA")
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        raise DataError(f"{path} is not a file of TextVQA: expected is {{'data': [...]}}, as TextVQA_0.5.1_val.json.")
    questions = []
    for index, fields in enumerate(data):
        record = Record(f"{path}, 'data'[{index}]", fields if isinstance(fields, dict) else {})
        answers = record.fields.get("answers")
        if not isinstance(answers, list) or len(answers) != ANSWERS or not all(isinstance(one, str) for one in answers):
            raise DataError(
                f"{record.where}: 'answers' is {short(answers)}; expected are {ANSWERS} texts. The test split has "
                "none: score the validation split."
            )
        questions.append(TextVqaQuestion(record.name("image_id"), record.text("question"), tuple(answers)))
    return questions


def question_of(answer: Answer) -> str:
    """The question in a prompt, in small letters, by LLaVA's rules.

    Raises:
        DataError: The prompt has none of LLaVA's forms.
    """
    prompt = answer.prompt
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = re.search(r"Question: (.*?) Short answer:", prompt, re.DOTALL)
        if found:
            return found[1].lower()
    elif OCR_LINE in prompt and len(lines) == 3:
        return lines[1 if prompt.startswith(OCR_LINE) else 0].lower()
    elif len(lines) == 2:
        return lines[0].lower()
    raise DataError(
        f"{answer.where}: 'prompt' is {short(prompt)}; expected are the question, possibly a line '{OCR_LINE} ...', "
        "and the instruction, one per line. Use LLaVA's llava_textvqa_val_v051_ocr.jsonl."
    )


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean of min(1, matches / 3) over the subsets that leave one answer out, 0 to 1. Both sides are normalized."""
    matches = Counter(map(normalize, answers))[normalize(prediction)]
    left_out_match = matches * min(1.0, (matches - 1) / 3)
    left_out_other = (len(answers) - matches) * min(1.0, matches / 3)
    return (left_out_match + left_out_other) / len(answers)


def evaluate_textvqa(answers: str | Path, annotations: str | Path) -> dict[str, dict[str, float]]:
    """Score answers to TextVQA.

    A question that occurs twice for one picture is compared with the answers of its last entry, as LLaVA does.

    Args:
        answers: Answer file.
        annotations: TextVQA_0.5.1_val.json.

    Returns:
        {"textvqa": {"accuracy" in percent, "questions", "with_ocr": number of prompts with the OCR line}}.

    Raises:
        DataError: A file breaks its format, or the answers are to other questions.
    """
    questions = read_textvqa(annotations)
    by_key = {one.key: one for one in questions}
    keys = [one.key for one in questions]
    joined = join(read_answers(answers), keys, lambda answer: (answer.question_id, question_of(answer)), answers)
    scores = [soft_accuracy(answer.text, by_key[key].answers) for key, answer in zip(keys, joined, strict=True)]
    return {
        "textvqa": {
            "accuracy": 100 * sum(scores) / len(scores),
            "questions": len(scores),
            "with_ocr": sum(has_ocr(answer.prompt) for answer in joined),
        }
    }


def has_ocr(prompt: str) -> bool:
    """True if a prompt lists OCR words."""
    return OCR_LINE in prompt or prompt.startswith("OCR tokens: ")
