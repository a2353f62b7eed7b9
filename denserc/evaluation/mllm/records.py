"""JSON and JSON Lines files, whose errors name file, line, field, value and remedy."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...structures import DataError


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object and where it is.

    Args:
        where: File and line, or file and entry, for messages.
        fields: Content.
    """

    where: str
    fields: dict[str, Any]

    def text(self, field: str) -> str:
        """A field that holds text, possibly empty.

        Raises:
            DataError: The field is absent or holds something else.
        """
        value = self._get(field)
        if not isinstance(value, str):
            raise DataError(f"{self.where}: '{field}' is {short(value)}; expected is text. Correct this line.")
        return value

    def name(self, field: str) -> str:
        """A field that holds an id, a whole number or text, as text.

        Raises:
            DataError: The field is absent or holds something else.
        """
        value = self._get(field)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise DataError(
                f"{self.where}: '{field}' is {short(value)}; expected is a whole number or text. Correct this line."
            )
        return str(value)

    def choice(self, field: str, legal: tuple[str, ...]) -> str:
        """A field that holds one of several words.

        Raises:
            DataError: The field is absent or holds another word.
        """
        value = self._get(field)
        if value not in legal:
            expected = " or ".join(map(repr, legal))
            raise DataError(f"{self.where}: '{field}' is {short(value)}; expected is {expected}. Correct this line.")
        return value

    def _get(self, field: str) -> Any:
        if field not in self.fields:
            raise DataError(
                f"{self.where}: there is no '{field}'; the fields are {', '.join(self.fields) or 'none'}. Is this a "
                "file of another kind?"
            )
        return self.fields[field]


def read_json_lines(path: str | Path, what: str) -> list[Record]:
    """Read a file with one JSON object per line. Blank lines are skipped.

    Args:
        what: Name of the content, for messages: "answer", "question".

    Raises:
        DataError: The file is absent, empty, or a line is not a JSON object.
    """
    path = Path(path)
    records = []
    for number, line in enumerate(_read(path, f"{what} file").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{where}: not JSON ({error}): {short(line)}. Expected is one object per line; remove the line if it "
                "was cut off, and run its question again."
            ) from None
        if not isinstance(fields, dict):
            raise DataError(f"{where}: {short(fields)} is not an object; expected is one {what} per line.")
        records.append(Record(where, fields))
    if not records:
        raise DataError(f"The {what} file {path} is empty; expected is one JSON object per line.")
    return records


def read_json(path: str | Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: The file is absent, empty or not JSON.
    """
    path = Path(path)
    text = _read(path, what)
    try:
        return json.loads(text)
    except ValueError as error:
        given = "empty" if not text.strip() else f"not JSON ({error})"
        raise DataError(f"The {what} {path} is {given}. Download it again, or name another file.") from None


def short(value: Any) -> str:
    """A value in a message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"The {what} {path} does not exist. Correct its path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The {what} {path} cannot be read: {error}.") from error


def first_of(items: Iterator[str] | list[str], shown: int = 3) -> str:
    """The first items of a list for a message: "a, b, c, ..."."""
    items = list(items)
    return ", ".join(items[:shown]) + (", ..." if len(items) > shown else "")
