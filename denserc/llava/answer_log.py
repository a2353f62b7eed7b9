"""Answers on disk as they come, in LLaVA's JSON Lines, with everything that a resumed run has to know in each line.

One process appends to the answer file itself. Several append to FILE.part0, FILE.part1, ..., which are merged in the
order of the questions. "metadata" names the model's fingerprint and the settings, so that no file mixes two models.
"""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ..evaluation.mllm.answers import Question, answer_of
from ..structures import ConfigurationError, DataError, write_errors
from ..structures.files import drop_cut_line, write_text
from ..structures.records import read_json_lines, short

logger = logging.getLogger(__name__)

_Key = tuple[str, str]
_ORIGIN = "made_by"


class AnswerLog:
    """The answer file of one question file, resumed where it exists.

    Args:
        path: Answer file; its folder is created.
        questions: All questions, in order. The same question may occur several times.
        origin: Fingerprint of the model and settings: plain JSON values. Only a file of the same is continued.
        model_id: Name of the model, for LLaVA's field of that name.
    """

    def __init__(self, path: str | Path, questions: Sequence[Question], origin: Mapping, model_id: str):
        self.path = Path(path)
        self.questions = list(questions)
        self.origin = dict(origin)
        self.model_id = model_id
        self._expected = Counter(map(_key, self.questions))

    def resume(self) -> list[int]:
        """Collect what former processes wrote, repair cut last lines, and merge into one file.

        Returns:
            Positions of the questions without an answer.

        Raises:
            ConfigurationError: Another model, other settings or another program wrote the file.
            DataError: A line is damaged, or answers another question.
        """
        lines: dict[_Key, list[tuple[str, str]]] = defaultdict(list)
        written = self._files()
        for file in written:
            self._repair(file)
            for key, text, line in self._read(file):
                known = lines[key]
                if len(known) < self._expected[key]:
                    known.append((text, line))
                elif text not in [other for other, _ in known]:
                    raise DataError(
                        f"{file}: one more answer to 'question_id' {key[0]!r} than questions, and it differs: "
                        f"{short(text)}. Two runs wrote to it. Remove one of the answers, or the file."
                    )
        ordered, remaining = self._in_order(lines)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if written and (written != [self.path] or ordered != self._text(self.path)):
            write_text(self.path, ordered)
            for file in written:
                if file != self.path:
                    file.unlink()
        return remaining

    def part(self, process: int, processes: int) -> Path:
        """The file that one of several processes appends to."""
        return self.path if processes == 1 else self.path.with_name(f"{self.path.name}.part{process}")

    def open(self, process: int = 0, processes: int = 1) -> TextIO:
        """Open the file of one process to append to; the caller closes it."""
        return self.part(process, processes).open("a", encoding="utf-8")

    def write(self, file: TextIO, position: int, text: str) -> None:
        """Append the answer to a question; it is on its way to the disk when this returns."""
        question = self.questions[position]
        name = json.dumps([self.origin, question.raw_id, question.text, position], sort_keys=True)
        line = {
            "question_id": question.raw_id,
            "prompt": question.text,
            "text": text,
            "answer_id": hashlib.sha256(name.encode()).hexdigest()[:22],
            "model_id": self.model_id,
            "metadata": {_ORIGIN: self.origin},
        }
        with write_errors(file.name):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()

    def _files(self) -> list[Path]:
        parts = sorted(self.path.parent.glob(f"{self.path.name}.part*"))
        return [file for file in (self.path, *parts) if file.is_file()]

    def _repair(self, file: Path) -> None:
        if drop_cut_line(file):
            logger.warning("%s: the last line was cut off by an interruption; its question is asked again.", file)

    def _read(self, file: Path) -> list[tuple[_Key, str, str]]:
        """(question, answer, line) of each line of a file."""
        if not file.stat().st_size:
            return []
        found = []
        for record in read_json_lines(file, "answer"):
            answer = answer_of(record)
            made_by = answer.metadata.get(_ORIGIN)
            if made_by != self.origin:
                difference = _difference(made_by, self.origin)
                raise ConfigurationError(
                    f"{answer.where} was not written by this model with these settings: {difference}. Name another "
                    "answer file, or remove this one to start anew."
                )
            key = (answer.question_id, answer.prompt)
            if key not in self._expected:
                raise DataError(
                    f"{answer.where} answers 'question_id' {answer.question_id!r}, {short(answer.prompt)}, which the "
                    "question file does not have. Give the question file that it was begun with, or another answer "
                    "file."
                )
            found.append((key, answer.text, json.dumps(record.fields, ensure_ascii=False)))
        return found

    def _in_order(self, lines: Mapping[_Key, list[tuple[str, str]]]) -> tuple[str, list[int]]:
        """Content of the file in the order of the questions, and positions without an answer."""
        following = {key: iter(its) for key, its in lines.items()}
        ordered, remaining = [], []
        for position, question in enumerate(self.questions):
            found = next(following.get(_key(question), iter(())), None)
            if found is None:
                remaining.append(position)
            else:
                ordered.append(found[1] + "\n")
        return "".join(ordered), remaining

    @staticmethod
    def _text(file: Path) -> str:
        return file.read_text(encoding="utf-8")


def _key(question: Question) -> _Key:
    return question.question_id, question.text


def _difference(given: object, expected: Mapping) -> str:
    """The first difference of two origins in words."""
    if not isinstance(given, Mapping):
        return "it names no model, so another program wrote it"
    names = [name for name in expected if given.get(name) != expected[name]] or list(given.keys() - expected.keys())
    name = names[0]
    return f"its {name} is {short(given.get(name))}, this run's is {short(expected.get(name))}"
