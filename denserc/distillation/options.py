"""Named options: an unknown name raises and lists the legal ones."""

from enum import Enum
from typing import TypeVar

from ..structures import ConfigurationError

EnumT = TypeVar("EnumT", bound=Enum)


def choose(options: type[EnumT], name: str, key: str) -> EnumT:
    """The member of `options` whose value is `name`.

    Args:
        options: an Enum with string values.
        name: what the configuration gave.
        key: the configuration key, for the error's text.

    Raises:
        ConfigurationError: no such member.
    """
    for member in options:
        if member.value == name:
            return member
    raise ConfigurationError(f"{key} is {name!r}; legal values are {[member.value for member in options]}.")
