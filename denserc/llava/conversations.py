"""LLaVA's training files: read, checked by rules before training, and held as rounds of question and answer.

A file is a JSON list of `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}`. "image" is
relative to a folder, and absent where there is only text. `<image>` is in one value of the human's.
"""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..structures import DataError
from ..structures.records import read_json, short

logger = logging.getLogger(__name__)

IMAGE = "<image>"
_HUMAN, _ASSISTANT = "human", "gpt"
_SHOWN = 10
_DOCUMENT = "docs/LLAVA.md describes the format."


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training example.

    Args:
        name: File, position and id, for messages.
        image: Path of the picture; None for text only.
        rounds: (question, answer) in order. With a picture exactly one question has `<image>`, at its front, followed
            by a line break where the question goes on. Without one none has it.
    """

    name: str
    image: str | None
    rounds: tuple[tuple[str, str], ...]

    @property
    def words(self) -> int:
        """Number of words, LLaVA's measure of length."""
        return sum(len(text.split()) for one in self.rounds for text in one)


class _Problem(Exception):
    """A rule that one entry breaks; the text names field, value and remedy."""


def read_conversations(files: Sequence[str | Path], images: str | Path) -> list[Conversation]:
    """Read training files and check every entry.

    As in LLaVA's own reader, a first turn of the assistant is left out. So is a last question without an answer, which
    has no loss there. The log counts both.

    Args:
        files: JSON files in LLaVA's format.
        images: Folder that "image" is relative to.

    Raises:
        DataError: A file is unreadable or empty, or entries break the rules. The message lists the first ones with
            file, position, field, value and remedy, and the number of all.
    """
    if not files:
        raise DataError(f"There are no training files. Set LLAVA.DATA.FILES. {_DOCUMENT}")
    found: list[Conversation] = []
    problems: list[str] = []
    left_out: Counter = Counter()
    for file in files:
        for index, entry in enumerate(_entries(Path(file))):
            name = _name(file, index, entry)
            try:
                found.append(_conversation(entry, name, str(images), left_out))
            except _Problem as problem:
                problems.append(f"{name}: {problem}")
    problems += _missing_pictures(found)
    if problems:
        raise DataError(_listed(problems))
    for reason, count in left_out.items():
        logger.warning("%s: %d", reason, count)
    with_picture = sum(one.image is not None for one in found)
    logger.info(
        "Read %d conversations: %d with a picture, %d of text", len(found), with_picture, len(found) - with_picture
    )
    return found


def with_image_in_front(question: str) -> str:
    """A question whose `<image>` is moved to its front and followed by a line break, as LLaVA trains and evaluates."""
    rest = question.replace(IMAGE, "").strip()
    return f"{IMAGE}\n{rest}".strip()


def _entries(file: Path) -> list:
    content = read_json(file, "training file", advice="Correct LLAVA.DATA.FILES.")
    if not isinstance(content, list) or not content:
        given = "an empty list" if content == [] else f"a {type(content).__name__}"
        raise DataError(f"The training file {file} holds {given}; expected is a list of conversations. {_DOCUMENT}")
    return content


def _name(file: str | Path, index: int, entry: Any) -> str:
    identity = f" (id {short(entry['id'])})" if isinstance(entry, dict) and "id" in entry else ""
    return f"{file}, entry {index}{identity}"


def _conversation(entry: Any, name: str, images: str, left_out: Counter) -> Conversation:
    if not isinstance(entry, dict):
        raise _Problem(f"it is a {type(entry).__name__}; expected is an object with 'conversations'.")
    image = entry.get("image")
    if "image" in entry and (not isinstance(image, str) or not image.strip()):
        raise _Problem(
            f"'image' is {short(image)}; expected is one path relative to {images}. Leave 'image' out of an entry of "
            "text only."
        )
    turns = list(_turns(entry.get("conversations")))
    if turns[0][0] == _ASSISTANT:
        left_out["First turns of the assistant, without a question, are left out"] += 1
        turns = turns[1:]
    _require_order(turns)
    _require_image_token(turns, image)
    if len(turns) % 2:
        left_out["Last questions without an answer are left out"] += 1
        turns = turns[:-1]
    values = [value for _, value in turns]
    if image is not None:
        values = [with_image_in_front(value) if IMAGE in value else value for value in values]
    rounds = tuple(zip(values[::2], values[1::2], strict=True))
    return Conversation(name, None if image is None else os.path.join(images, image), rounds)


def _turns(turns: Any) -> Iterator[tuple[str, str]]:
    """(speaker, value) of each turn, with known speakers and values of text."""
    if not isinstance(turns, list) or not turns:
        raise _Problem(f"'conversations' is {short(turns)}; expected is a list of turns {{'from', 'value'}}.")
    for position, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise _Problem(f"{_place(position)} is {short(turn)}; expected is an object with 'from' and 'value'.")
        speaker, value = turn.get("from"), turn.get("value")
        if speaker not in (_HUMAN, _ASSISTANT):
            raise _Problem(
                f"{_place(position)}['from'] is {short(speaker)}; expected is 'human' or 'gpt'. Rename the speaker."
            )
        if not isinstance(value, str) or not value.strip():
            kind = "question" if speaker == _HUMAN else "answer"
            raise _Problem(
                f"{_place(position)}['value'] is {short(value)}; expected is the text of the {kind}. Remove its round."
            )
        yield speaker, value


def _place(position: int) -> str:
    return f"'conversations'[{position}]"


def _require_order(turns: list[tuple[str, str]]) -> None:
    if len(turns) < 2:
        raise _Problem("'conversations' has no question with an answer; expected is at least one. Remove the entry.")
    for position, (speaker, _) in enumerate(turns):
        expected = (_HUMAN, _ASSISTANT)[position % 2]
        if speaker != expected:
            order = [one for one, _ in turns]
            raise _Problem(
                f"'conversations' has the order {short(order)}; expected are 'human' and 'gpt' alternately. Join or "
                "remove turns of the same speaker in a row."
            )


def _require_image_token(turns: list[tuple[str, str]], image: str | None) -> None:
    counts = [value.count(IMAGE) for _, value in turns]
    if any(counts[1::2]):
        raise _Problem(f"an answer holds {IMAGE}; expected is {IMAGE} in one question only. Move it to the question.")
    if image is None and sum(counts):
        raise _Problem(f"a question holds {IMAGE}, but there is no 'image'. Add 'image', or remove {IMAGE}.")
    if image is not None and sum(counts) != 1:
        raise _Problem(
            f"there are {sum(counts)} {IMAGE} for the 'image' {short(image)}; expected is exactly one, in a question. "
            + ("Add it to the first question." if not sum(counts) else "Remove the others; one picture per entry.")
        )
    if len(turns) % 2 and counts[-1]:
        raise _Problem(f"the question with {IMAGE} has no answer. Add the answer, or remove the entry.")


def _missing_pictures(conversations: Iterable[Conversation]) -> list[str]:
    """One message per conversation whose picture does not exist; each folder is listed once."""
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for conversation in conversations:
        if conversation.image is not None:
            folder, file = os.path.split(conversation.image)
            folders[folder][file].append(conversation.name)
    problems = []
    for folder, files in folders.items():
        present = _files(folder)
        problems += [
            f"{name}: the picture {os.path.join(folder, file)} does not exist. Download it, correct LLAVA.DATA.IMAGES, "
            "or remove the entry."
            for file, names in files.items()
            if file not in present
            for name in names
        ]
    return problems


def _files(folder: str) -> set[str]:
    """Names of the files in a folder; none if it is absent or unreadable."""
    if not os.path.isdir(folder or "."):
        return set()
    with os.scandir(folder or ".") as entries:
        return {entry.name for entry in entries if entry.is_file()}


def _listed(problems: list[str]) -> str:
    head = f"{len(problems)} training entries cannot be used; the training has not begun."
    more = [f"... and {len(problems) - _SHOWN} more."] if len(problems) > _SHOWN else []
    return "\n".join([head, *(f"  {problem}" for problem in problems[:_SHOWN]), *more, _DOCUMENT])
