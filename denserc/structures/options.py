"""Named options: an unknown name raises and lists the legal ones."""

from enum import Enum
from typing import TypeVar

from .errors import ConfigurationError

Option = TypeVar("Option", bound=Enum)


def choose(options: type[Option], value: Option | str, key: str) -> Option:
    """The member of `options` with this value.

    Args:
        options: an Enum with string values.
        value: what was given; a member stands for itself.
        key: the name of the setting, for the message.

    Raises:
        ConfigurationError: no such option; the message lists the legal ones.
    """
    try:
        return options(value)
    except ValueError:
        legal = ", ".join(repr(option.value) for option in options)
        raise ConfigurationError(f"{key} is {value!r}; legal are {legal}.") from None
