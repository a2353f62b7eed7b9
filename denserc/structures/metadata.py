"""Metadata of files as typed dataclasses: every field present, known and of its type, or an error that names it."""

import json
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import CheckpointError, DenseRCError
from .records import is_number, short

Fields = TypeVar("Fields")
_WORDS = {str: "text", int: "a whole number", float: "a finite number", dict: "a mapping", bool: "true or false"}


def json_mapping(text: Any, where: str, *, error: type[DenseRCError] = CheckpointError) -> dict[str, Any]:
    """The mapping that a text of JSON holds.

    Args:
        text: The text.
        where: File and entry, for messages.
        error: Class of the errors.

    Raises:
        DenseRCError: It is absent, not JSON, or something else.
    """
    try:
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError) as problem:
        raise error(
            f"{where} is damaged: {short(text)} is not JSON ({problem}). Copy or write the file anew."
        ) from problem
    if not isinstance(values, dict):
        raise error(f"{where} is damaged: {short(values)} is not a mapping. Copy or write the file anew.")
    return values


def typed_fields(
    kind: type[Fields], values: dict[Any, Any], where: str, *, error: type[DenseRCError] = CheckpointError
) -> Fields:
    """A dataclass of the values of a file.

    Args:
        kind: Dataclass whose fields are annotated str, int, float, bool, dict, a list of these, or one of these | None.
        values: Values by name.
        where: File and entry, for messages.
        error: Class of the errors.

    Raises:
        DenseRCError: A field is missing, unknown or of another type; the message lists them.
    """
    types = _types(kind)
    missing = [key for key, (_, required) in types.items() if required and key not in values]
    unknown = sorted(str(key) for key in values if key not in types)
    wrong = [
        f"{key} is {short(values[key])}, expected is {in_words(expected)}"
        for key, (expected, _) in types.items()
        if key in values and not is_of(values[key], expected)
    ]
    if missing or unknown or wrong:
        given = [f"missing are {missing}"] * bool(missing) + [f"unknown are {unknown}"] * bool(unknown) + wrong
        raise error(f"{where} is damaged: {'; '.join(given)}. Copy or write the file anew.")
    return kind(**values)


@cache
def _types(kind: type) -> dict[str, tuple[Any, bool]]:
    """Annotation and whether there is no default, by field."""
    hints = get_type_hints(kind)
    return {
        field.name: (hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
    }


def is_of(value: Any, expected: Any) -> bool:
    """Check that a value is of an annotated type; numbers are finite, and text can be encoded."""
    if isinstance(expected, UnionType):
        return any(is_of(value, one) for one in get_args(expected))
    if get_origin(expected) is list:
        return isinstance(value, list) and all(is_of(one, get_args(expected)[0]) for one in value)
    if expected is float:
        return is_number(value)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if expected is str:
        return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, expected)


def in_words(expected: Any) -> str:
    """An annotated type for a message."""
    if isinstance(expected, UnionType):
        return " or ".join(in_words(one) for one in get_args(expected))
    if get_origin(expected) is list:
        return f"a list, each {in_words(get_args(expected)[0])}"
    return "null" if expected is NoneType else _WORDS[expected]
