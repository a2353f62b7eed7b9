"""Small files in the benchmarks' formats."""

import json
from collections.abc import Iterable
from pathlib import Path

INSTRUCTION = "\nAnswer the question using a single word or phrase."


def write_lines(path: Path, records: Iterable[dict]) -> Path:
    """Write JSON Lines; returns the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def answer(question_id, question: str, text: str, instruction: str = INSTRUCTION) -> dict:
    """A line of an answer file, as LLaVA writes it."""
    return {
        "question_id": question_id,
        "prompt": question + instruction,
        "text": text,
        "answer_id": "x",
        "model_id": "llava",
        "metadata": {},
    }
