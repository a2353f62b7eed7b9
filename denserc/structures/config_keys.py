"""Configuration keys as data: default, one line of help, and which values are legal."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError

if TYPE_CHECKING:  # importing Detectron2 takes seconds, which the scripts below datasets/ do without
    from detectron2.config import CfgNode


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Args:
        name: Dotted name, e.g. "INPUT.SIZE".
        default: Value without any file. Its type is the key's, unless `kind` gives another.
        help: One or a few sentences: meaning, unit, source.
        choices: Legal values of a string; an Enum whose values are legal, or a sequence.
        minimum, maximum: Inclusive range of a number, or of each number of a list.
        above, below: The same, exclusive.
        kind: Type of a key whose default is None, and None is then legal too; of a list, the type of each element.
        lengths: Legal lengths of a list; () for any.
        rising: True for a list whose numbers do not fall.
    """

    name: str
    default: Any
    help: str
    choices: type[Enum] | tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    kind: type | None = None
    lengths: tuple[int, ...] = ()
    rising: bool = False

    def legal(self) -> str:
        """Legal values in words; "" where every value of the type is legal."""
        if self.choices is not None:
            words = ", ".join(repr(value) for value in self._values())
            return f"{' or '.join(map(str, self.lengths))} of {words}" if self.lengths else words
        form = f"{' or '.join(map(str, self.lengths))} values" if self.lengths else ""
        form += ", the first the smallest" if self.rising else ""
        low = "" if self.minimum is None else f"at least {self.minimum:g}"
        low = low if self.above is None else f"above {self.above:g}"
        high = "" if self.maximum is None else f"at most {self.maximum:g}"
        high = high if self.below is None else f"below {self.below:g}"
        each = " and ".join(part for part in (low, high) if part)
        return ", each ".join(part for part in (form, each) if part)

    def allows(self, value: Any) -> bool:
        """Check that a value of the right type is among the choices and within the range."""
        if value is None or isinstance(value, bool):
            return True
        if isinstance(value, (list, tuple)):
            if (self.lengths and len(value) not in self.lengths) or (self.rising and list(value) != sorted(value)):
                return False
            return all(self.allows(one) for one in value)
        if isinstance(value, str):
            return self.choices is None or value in self._values()
        return not (
            (self.minimum is not None and value < self.minimum)
            or (self.maximum is not None and value > self.maximum)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )

    def _values(self) -> list[str]:
        if isinstance(self.choices, tuple):
            return list(self.choices)
        return [option.value for option in self.choices]


def add_keys(cfg: "CfgNode", keys: Iterable[Key]) -> None:
    """Add keys with their defaults; those that exist, such as Detectron2's, get the new default."""
    for key in keys:
        *groups, last = key.name.split(".")
        node = cfg
        for group in groups:
            if group not in node:
                node[group] = type(cfg)()
            node = node[group]
        node[last] = list(key.default) if isinstance(key.default, list) else key.default


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> {dotted name: value}. An empty group has no entry."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def coerce(value: Any, default: Any, kind: type | None = None) -> Any:
    """A value in the type of a default.

    An int becomes a float, a list a tuple and the reverse; elements of a list follow the default's first element.

    Args:
        value: Value from YAML or the command line.
        default: A value of the type.
        kind: The type where the default is None; of a list, the type of each element.

    Raises:
        ConfigurationError: The value is of another type, or not finite. The message names what was expected.
    """
    if default is None:
        if kind is None or value is None:
            return value
        return coerce(value, kind())
    if isinstance(default, (list, tuple)):
        if not isinstance(value, (list, tuple)):
            raise ConfigurationError(f"a list, such as {list(default)!r}")
        if kind is not None:
            try:
                value = [coerce(one, kind()) for one in value]
            except ConfigurationError as error:
                raise ConfigurationError(f"a list, each element {error}") from None
        elif default and all(type(one) in (int, float) for one in default):
            value = [_number(one) for one in value]
        elif default:
            value = [coerce(one, default[0]) for one in value]
        else:
            _require_finite(value)
        return type(default)(value)
    if isinstance(default, bool) or isinstance(value, bool):
        if type(default) is not type(value):
            raise ConfigurationError(_TYPES.get(type(default), type(default).__name__))
        return value
    if isinstance(default, float) and isinstance(value, int):
        _require_finite([value])
        return float(value)
    if type(value) is not type(default):
        raise ConfigurationError(_TYPES.get(type(default), type(default).__name__))
    _require_finite([value])
    return value


_LARGEST = 2**31 - 1  # C code and NumPy's seeds take no larger one
_TYPES = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def _number(value: Any) -> int | float:
    if type(value) not in (int, float):
        raise ConfigurationError("a list of numbers")
    _require_finite([value])
    return value


def _require_finite(values: Iterable) -> None:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError("a finite number")
        if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
            raise ConfigurationError(f"a number within -{_LARGEST}..{_LARGEST}")
        if isinstance(value, (list, tuple)):
            _require_finite(value)
