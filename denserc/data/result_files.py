"""Reading of lists in COCO's results format, entry by entry, so that the whole is never in memory."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO

from ..structures import DataError
from ..structures.records import short

_CHUNK = 1 << 22  # characters read at once; also the longest entry
_TAIL = 32  # characters before the end of what was read in which a fault may be the cut of a word or a number
_BLANK = re.compile(r"[ \t\r\n]*")
_GZIP = b"\x1f\x8b"


@contextmanager
def open_results(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if it is gzipped, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked


def stream_results(path: str | Path, what: str = "proposals") -> Iterator[dict]:
    """Yield the entries of a JSON list one at a time.

    The file is UTF-8 with or without a byte order mark, plain or gzipped.

    Args:
        what: Name of the entries in errors, in the plural.

    Raises:
        DataError: The file is absent, damaged, goes on after its list, or is not a list of JSON objects. The message
            has the number of the entry and its place.
    """
    path = Path(path)
    try:
        with open_results(path) as file:
            yield from _Entries(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), path, what)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"The {what} {path} do not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"The {what} {path} are not UTF-8 ({error.reason}). Save the file as UTF-8.") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(f"The {what} {path} cannot be read: {error}.") from error


class _Entries:
    """Iterator over the entries of an open file.

    Args:
        file: Text of the file.
        path, what: For messages.
    """

    def __init__(self, file: TextIO, path: Path, what: str):
        self.file = file
        self.path = path
        self.what = what
        self.text, self.position, self.before = "", 0, 0  # `before`: characters dropped already
        self.ended = False

    def __iter__(self) -> Iterator[dict]:
        first = self._next_character()
        if first != "[":
            self._refuse_start(first)
        self.position += 1
        decoder, count = json.JSONDecoder(), 0
        while (character := self._next_character()) != "]":
            if count and character:
                if character != ",":
                    self._refuse(count, "there is no comma before it" if character == "{" else f"it is {character!r}")
                self.position += 1
                character = self._next_character()
            if not character:
                self._refuse_cut(count)
            yield self._entry(decoder, count)
            count += 1
        self.position += 1
        if self._next_character():
            raise DataError(
                f"The {self.what} {self.path} go on after the list of {count} entries ends, at {self._place()}: "
                f"{self._near()}. Join several lists to one, [{{...}}, {{...}}]."
            )

    def _entry(self, decoder: json.JSONDecoder, number: int) -> dict:
        """The entry that begins here."""
        while True:
            try:
                entry, end = decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                open_text = error.msg.startswith("Unterminated string")
                at_end = open_text or error.pos + _TAIL >= len(self.text)
                if at_end and len(self.text) - self.position <= _CHUNK and self._read_more():
                    continue
                if at_end and not self.ended:
                    self._refuse(number, f"it is longer than {_CHUNK} characters")
                if self.ended and (open_text or not set(self.text[error.pos :]) & set("}]")):
                    self._refuse_cut(number)
                self.position = error.pos
                self._refuse(number, error.msg)
            except RecursionError:
                self._refuse(number, "it is nested too deeply to be read")
            except ValueError as error:  # an integer of thousands of digits
                self._refuse(number, str(error))
            else:
                if end < len(self.text) or not self._read_more():  # a number at the end may go on
                    self.position = end
                    return entry

    def _next_character(self) -> str:
        """The next character that is not blank, "" at the end."""
        while True:
            self.position = _BLANK.match(self.text, self.position).end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._read_more():
                return ""

    def _read_more(self) -> bool:
        """Append a chunk to what is left of the text; False at the end of the file."""
        more = "" if self.ended else self.file.read(_CHUNK)
        if not more:
            self.ended = True
            return False
        self.before += self.position
        self.text, self.position = self.text[self.position :] + more, 0
        return True

    def _refuse_start(self, first: str) -> NoReturn:
        near = self.text[self.position : self.position + 60]
        if not first:
            given = "are empty"
        elif first == "<":
            given = f"are a web page or XML: they start with {short(near)}"
        elif near.startswith("version https://git-lfs"):
            given = "are a pointer of Git LFS, not the file itself"
        else:
            given = f"start with {first!r}"
        raise DataError(
            f"The {self.what} {self.path} {given}. Expected is a JSON list of results, [{{...}}, {{...}}], not a data "
            "set with 'images' and 'annotations', and not one object per line."
        )

    def _refuse(self, number: int, fault: str) -> NoReturn:
        hint = ""
        if self._near(1) == repr("'") or "'image_id'" in self.text[:200]:
            hint = " JSON has double quotes: write the file with json.dump, not with str()."
        raise DataError(
            f"The {self.what} {self.path} are not JSON at entry {number}, {self._place()}: {fault}, near "
            f"{self._near()}.{hint}"
        )

    def _refuse_cut(self, number: int) -> NoReturn:
        raise DataError(
            f"The {self.what} {self.path} end in the middle of the list, in or before entry {number}, {self._place()}; "
            "the file was cut short. Write or copy it again."
        )

    def _near(self, length: int = 60) -> str:
        return repr(self.text[self.position : self.position + length])

    def _place(self) -> str:
        return f"character {self.before + self.position}"
