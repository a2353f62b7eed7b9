"""Text, JSON and JSON Lines files, whose errors name file, line or entry, field, value and remedy.

Every text file that a user hands in is read here: UTF-8 with or without a byte order mark, plain or compressed by gzip.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError

MAX_ID = 2**53
"""Ids below it are exact in JSON, in float64 and in int64."""
_GZIP = b"\x1f\x8b"
_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_REQUIRED = object()


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
            raise self.fault(field, "text")
        return value

    def name(self, field: str) -> str:
        """A field that holds an id, a whole number or text, as text.

        Raises:
            DataError: The field is absent or holds something else.
        """
        value = self._get(field)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise self.fault(field, "a whole number or text")
        return str(value)

    def choice(self, field: str, legal: tuple[str, ...]) -> str:
        """A field that holds one of several words.

        Raises:
            DataError: The field is absent or holds another word.
        """
        value = self._get(field)
        if value not in legal:
            raise self.fault(field, " or ".join(map(repr, legal)))
        return value

    def whole(self, field: str, *, low: int = 0, high: int = MAX_ID, default: Any = _REQUIRED) -> int:
        """A field that holds a whole number in [low, high]; 3.0 counts as 3.

        Args:
            default: Value if the field is absent; without it the field must be there.

        Raises:
            DataError: The field is absent without a default, or holds something else.
        """
        value = self._get(field, default)
        if value is default:
            return value
        if not is_number(value) or value != math.floor(value) or not low <= value <= high:
            raise self.fault(field, f"a whole number from {low} to {high}")
        return int(value)

    def number(self, field: str, *, low: float = -math.inf, high: float = math.inf, default: Any = _REQUIRED) -> float:
        """A field that holds a finite number in [low, high].

        Args:
            default: Value if the field is absent; without it the field must be there.

        Raises:
            DataError: The field is absent without a default, or holds something else.
        """
        value = self._get(field, default)
        if value is default:
            return value
        if not is_number(value) or not low <= value <= high:
            bounds = "" if math.isinf(low) and math.isinf(high) else f" from {low} to {high}"
            raise self.fault(field, f"a finite number{bounds}")
        return value

    def list(self, field: str, *, default: Any = _REQUIRED) -> list:
        """A field that holds a list.

        Raises:
            DataError: The field is absent without a default, or holds something else.
        """
        value = self._get(field, default)
        if value is default:
            return value
        if not isinstance(value, list):
            raise self.fault(field, "a list")
        return value

    def records(self, field: str) -> Iterator["Record"]:
        """The objects of a field that holds a list of objects.

        Raises:
            DataError: The field is absent, or holds something else.
        """
        for index, entry in enumerate(self.list(field)):
            yield record_of(f"{self.where}, {field}[{index}]", entry)

    def fault(self, field: str, expected: str) -> DataError:
        """The error of a field whose value is none of what is expected."""
        return DataError(f"{self.where}: '{field}' is {short(self.fields.get(field))}; expected is {expected}.")

    def _get(self, field: str, default: Any = _REQUIRED) -> Any:
        if field in self.fields:
            return self.fields[field]
        if default is not _REQUIRED:
            return default
        raise DataError(
            f"{self.where}: there is no '{field}'; the fields are {', '.join(map(str, self.fields)) or 'none'}. Is "
            "this a file of another kind?"
        )


def record_of(where: str, value: Any) -> Record:
    """A JSON object as a record.

    Raises:
        DataError: The value is not an object.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where}: {short(value)} is not an object with fields.")
    return Record(where, value)


def is_number(value: Any) -> bool:
    """True for a finite number of JSON; true and false are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def whole_id(value: Any) -> int | None:
    """An id of any file as a number: a whole number, or text of digits ("000123" is 123), below 2**53 in size.

    Returns:
        The number; None for anything else, such as other text, true, 1.5 or null.
    """
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            return None
        value = int(value)
    elif isinstance(value, np.integer):
        value = int(value)
    elif not is_number(value) or value != math.floor(value):
        return None
    return int(value) if abs(value) < MAX_ID else None


def read_text(path: str | Path, what: str, *, advice: str = "Correct its path.") -> str:
    """Read a text file: UTF-8, with or without a byte order mark, plain or compressed by gzip.

    Args:
        what: Name of the content, for messages: "annotation file".
        advice: Remedy if the file is absent.

    Raises:
        DataError: The file is absent, cannot be read, or is not UTF-8.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP:
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"The {what} {path} does not exist. {advice}") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(f"The {what} {path} cannot be read: {error}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The {what} {path} is not UTF-8: byte {error.start} is {content[error.start]:#04x}. Save it as UTF-8."
        ) from None


def read_json(path: str | Path, what: str, *, advice: str = "Correct its path.") -> Any:
    """Read a JSON file; see `read_text` for the arguments.

    Raises:
        DataError: The file is absent, empty, not UTF-8, not JSON, or nested too deeply.
    """
    text = read_text(path, what, advice=advice)
    try:
        return json.loads(text)
    except RecursionError:
        given = "nested too deeply to be read"
    except ValueError as error:
        given = f"not JSON ({error})" if text.strip() else "empty"
        if text.startswith("version https://git-lfs"):
            given = "a pointer of Git LFS, not the file itself"
        elif text.lstrip()[:1] == "<":
            given = f"a web page or XML, not JSON: it begins with {short(text.strip()[:40])}"
    raise DataError(f"The {what} {path} is {given}. Export or download it again, or name another file.")


def read_json_lines(path: str | Path, what: str) -> list[Record]:
    """Read a file with one JSON object per line. Blank lines are skipped.

    Args:
        what: Name of the content, for messages: "answer", "question".

    Raises:
        DataError: The file is absent, empty, or a line is not a JSON object.
    """
    path = Path(path)
    records = []
    for number, line in enumerate(read_text(path, f"{what} file").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
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


def short(value: Any) -> str:
    """A value in a message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_of(items: Iterator[str] | list[str], shown: int = 3) -> str:
    """The first items of a list for a message: "a, b, c, ..."."""
    items = list(items)
    return ", ".join(items[:shown]) + (", ..." if len(items) > shown else "")
