"""LLaVA's question and answer files, and the join of answers with what they answer.

Ids repeat in LLaVA's own files: TextVQA and MME use the picture's. An answer therefore belongs to a question by id and
text, which `join` receives as one key.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...structures import DataError
from ...structures.records import Record, first_of, read_json_lines, short


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a question file.

    Args:
        where: File and line, for messages.
        question_id: Id as text.
        image: Picture, relative to a folder.
        text: Question with its instruction, e.g. "Is it red?\\nAnswer the question using a single word or phrase."
        category: POPE's split; "" where the file names none.
        raw_id: Id as in the file, number or text.
    """

    where: str
    question_id: str
    image: str
    text: str
    category: str
    raw_id: int | str

    @property
    def words(self) -> str:
        """The question without instruction: the first line of its text."""
        return self.text.split("\n")[0].strip()


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of an answer file.

    Args:
        where: File and line, for messages.
        question_id: Id as text.
        prompt: Text of the question, with its instruction.
        text: Answer of the model, possibly empty.
        metadata: Further facts, {} in LLaVA's own files.
    """

    where: str
    question_id: str
    prompt: str
    text: str
    metadata: dict[str, Any]

    @property
    def words(self) -> str:
        """The question without instruction: the first line of the prompt."""
        return self.prompt.split("\n")[0].strip()


def read_questions(path: str | Path) -> list[Question]:
    """Read a question file: JSON Lines of {"question_id", "image", "text", "category"?}.

    Raises:
        DataError: The file is absent, empty, or a line breaks the format.
    """
    return [
        Question(
            where=record.where,
            question_id=record.name("question_id"),
            image=record.text("image"),
            text=record.text("text"),
            category=record.text("category") if record.fields.get("category") is not None else "",
            raw_id=record.fields["question_id"],
        )
        for record in read_json_lines(path, "question")
    ]


def read_answers(path: str | Path) -> list[Answer]:
    """Read an answer file: JSON Lines of {"question_id", "prompt", "text", ...}.

    Raises:
        DataError: The file is absent, empty, or a line breaks the format.
    """
    return [answer_of(record) for record in read_json_lines(path, "answer")]


def answer_of(record: Record) -> Answer:
    """One answer; DataError where its line breaks the format."""
    metadata = record.fields.get("metadata", {})
    return Answer(
        where=record.where,
        question_id=record.name("question_id"),
        prompt=record.text("prompt"),
        text=record.text("text"),
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def join(
    answers: Sequence[Answer], keys: Sequence[Hashable], key: Callable[[Answer], Hashable], path: str | Path
) -> list[Answer]:
    """The answer of each key. A key that occurs n times has n answers, in the order of the file.

    Args:
        answers: Lines of the answer file.
        keys: Keys of all questions.
        key: Key of an answer.
        path: Answer file, for messages.

    Raises:
        DataError: An answer belongs to no question, or a question has too many answers or none.
    """
    expected = Counter(keys)
    given: dict[Hashable, list[Answer]] = defaultdict(list)
    strangers = []
    for answer in answers:
        found = key(answer)
        if found in expected:
            given[found].append(answer)
        else:
            strangers.append(answer)
    if strangers:
        one = strangers[0]
        raise DataError(
            f"{path}: {len(strangers)} of {len(answers)} answers belong to no question of this benchmark. The first: "
            f"{one.where}, 'question_id' {one.question_id!r}, 'prompt' {short(one.prompt)}. Give the answers of the "
            "same question file."
        )
    for found, its in given.items():
        if len(its) > expected[found]:
            ids = [f"{one.where} ('question_id' {one.question_id!r}: {short(one.text)})" for one in its]
            raise DataError(
                f"{path}: {len(its)} answers to a question that occurs {times(expected[found])}: {first_of(ids)}. "
                "Remove the doubled ones; files of several processes must not overlap."
            )
    missing = [found for found, count in expected.items() if len(given[found]) < count]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(expected)} questions have no answer. The first: "
            f"{first_of([short(one) for one in missing])}. Continue the run that was interrupted, and score the whole "
            "file."
        )
    following = {found: iter(its) for found, its in given.items()}
    return [next(following[one]) for one in keys]


def times(count: int) -> str:
    """A count in words: "once", "3 times"."""
    return "once" if count == 1 else f"{count} times"
