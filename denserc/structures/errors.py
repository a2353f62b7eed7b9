"""Errors for users, the end of a script that meets one, and the choice of a named option.

Each message contains what was given, what was expected and what to do.
"""

import sys
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NoReturn, TypeVar

INTERRUPTED = 130
"""Exit status of a process that Ctrl-C has ended."""


class DenseRCError(Exception):
    """Base class of everything that DenseRC raises on bad input."""


class ConfigurationError(DenseRCError, ValueError):
    """An option has a value that does not exist or does not fit the others."""


class DataError(DenseRCError, ValueError):
    """A data set, an annotation file or an image does not hold what its format promises."""


class UnreadableImageError(DataError):
    """An image file that is absent, damaged or too large; a reader of many images may pass over it and count it.

    Args:
        message: Reason and remedy.
        path: The file.
    """

    def __init__(self, message: str, path: str = ""):
        super().__init__(message)
        self.path = path


class CheckpointError(DenseRCError, ValueError):
    """A file is not the checkpoint that it is used as."""


class WriteError(DenseRCError, OSError):
    """A file cannot be written: the disk is full, or the folder refuses it. What was there before is unchanged."""


class FingerprintMismatchError(DenseRCError, ValueError):
    """Text embeddings were made by another text encoder than the one in use."""


class WeightsMismatchError(CheckpointError):
    """Weights do not fit a module exactly; carries the full lists.

    Args:
        source: Path or name of the weights.
        missing: Keys that the module has and the weights lack.
        unexpected: Keys that the weights have and the module lacks.
        misshapen: (key, shape in the weights, shape in the module).
        mistyped: (key, kind of number in the weights, in the module).
        advice: Remedy for the user.
    """

    def __init__(
        self,
        source: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        misshapen: Iterable[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
        advice: str = "Check that the weights belong to this encoder.",
        mistyped: Iterable[tuple[str, str, str]] = (),
    ):
        self.missing = sorted(missing)
        self.unexpected = sorted(unexpected)
        self.misshapen = sorted(misshapen)
        self.mistyped = sorted(mistyped)
        lines = [f"The weights from {source} do not fit exactly. {advice}"]
        for title, keys in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("misshapen", [f"{k}: given {tuple(g)}, expected {tuple(e)}" for k, g, e in self.misshapen]),
            ("mistyped", [f"{k}: given {g}, expected {e}" for k, g, e in self.mistyped]),
        ):
            if keys:
                lines.append(f"{title} ({len(keys)}):")
                lines.extend(f"  {key}" for key in keys)
        super().__init__("\n".join(lines))


class TrainingStopped(KeyboardInterrupt):
    """A training has ended by a signal, and its state is written.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.status = 128 + number
        """Exit status of a process, as a shell gives it: 143 for SIGTERM, 130 for SIGINT."""


def exit_with(main: Callable[[list[str]], int], arguments: list[str]) -> NoReturn:
    """End a script with the status of its main function.

    A user's error is one line and status 2; a traceback means a bug of DenseRC. Ctrl-C is status 130.
    """
    try:
        sys.exit(main(arguments))
    except DenseRCError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        sys.exit(stop.status if isinstance(stop, TrainingStopped) else INTERRUPTED)


Option = TypeVar("Option", bound=Enum)


def choose(options: type[Option], value: Option | str, key: str) -> Option:
    """The member of `options` with this value.

    Args:
        options: An Enum with string values.
        value: The given value, or a member.
        key: The name of the setting, for the message.

    Raises:
        ConfigurationError: No such option; the message lists the legal ones.
    """
    try:
        return options(value)
    except ValueError:
        legal = ", ".join(repr(option.value) for option in options)
        raise ConfigurationError(f"{key} is {value!r}; legal are {legal}.") from None
