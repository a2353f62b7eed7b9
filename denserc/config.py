"""The configuration: Detectron2's keys and DenseRC's, and the only reader of configuration files.

Files are read by a safe YAML loader, and `_BASE_` names local files only. Every key and value is checked where it is
read. An error names the file (or the command line), the key, its value and the expected value.
"""

import difflib
from ast import literal_eval
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from .construction import config as construction
from .data import config as data
from .detection import config as detection
from .distillation import config as distillation
from .engine import config as solver
from .engine.detectron2_keys import RANGES
from .engine.renamed_keys import OLD_KEYS, old_key_advice
from .evaluation import config as evaluation
from .llava import config as llava
from .openvocab import config as openvocab
from .segmentation import config as segmentation
from .structures import ConfigurationError, DataError, Key, add_keys, coerce, flatten
from .structures.yaml_files import read_yaml

BASE = "_BASE_"
COMMAND_LINE = "the command line"

KEYS: tuple[Key, ...] = (
    *data.KEYS,
    *construction.KEYS,
    *solver.KEYS,
    *openvocab.KEYS,
    *distillation.KEYS,
    *detection.KEYS,
    *evaluation.KEYS,
    *segmentation.KEYS,
    *llava.KEYS,
)
"""Every key of DenseRC, and the few of Detectron2 with another default here."""


def add_denserc_config(cfg: CfgNode) -> None:
    """Add every key of DenseRC with its default."""
    add_keys(cfg, KEYS)


def get_denserc_config() -> CfgNode:
    """Detectron2's defaults with DenseRC's keys added."""
    cfg = get_cfg()
    add_denserc_config(cfg)
    return cfg


def read_config(
    path: str | Path | None, overrides: Sequence = (), *, resolve: Callable[[str], str | Path] | None = None
) -> CfgNode:
    """The frozen configuration of a file and of overrides.

    Example::

        cfg = read_config("configs/ovcoco_vitb16.yaml", ["MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", 1e-4])

    Args:
        path: YAML file, with `_BASE_` files relative to it; None or "" for the defaults.
        overrides: KEY, VALUE, KEY, VALUE, ... of the command line or of a caller; strings are read as Python literals
            where they are ones.
        resolve: Function from a name to a file, for `path` and for each `_BASE_` that is not a file, such as
            `denserc.model_zoo.get_config_file` for packaged configurations. None for files only.

    Raises:
        ConfigurationError: An unreadable file, an unknown key, or a value of another type or out of range.
    """
    cfg = get_denserc_config()
    if path:
        for key, (value, source) in _merged(_Reading(_found(Path(path), str(path), resolve), resolve)).items():
            _set(cfg, key, value, source)
    override(cfg, overrides)
    cfg.freeze()
    return cfg


def override(cfg: CfgNode, overrides: Sequence, source: str = COMMAND_LINE) -> None:
    """Set KEY, VALUE, KEY, VALUE, ... in a configuration that is not frozen, with the checks of `read_config`.

    Raises:
        ConfigurationError: See `read_config`; or a key without a value.
    """
    if len(overrides) % 2:
        raise ConfigurationError(
            f"{source}: settings come in pairs KEY VALUE; {len(overrides)} words were given: {list(overrides)}."
        )
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _set(cfg, str(key), value, source)


@dataclass(frozen=True)
class _Reading:
    """A file on the way to its bases: the files above it, outermost first."""

    path: Path
    resolve: Callable[[str], str | Path] | None = None
    above: tuple[Path, ...] = ()


def _found(path: Path, name: str, resolve: Callable[[str], str | Path] | None) -> Path:
    """The path if it is a file or there is no other way; else the file of that name."""
    return path if resolve is None or path.expanduser().is_file() else Path(resolve(name))


def _merged(reading: _Reading) -> dict[str, tuple[Any, str]]:
    """{dotted key: (value, file that gives it)} of a file and its bases."""
    path = reading.path.expanduser()
    tree = _load(path)
    bases = tree.pop(BASE, [])
    found: dict[str, tuple[Any, str]] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        target = _base_path(base, path, reading.resolve)
        above = (*reading.above, path.resolve())
        if target.resolve() in above:
            chain = " -> ".join(str(one) for one in (*above, target.resolve()))
            raise ConfigurationError(f"{path}: {BASE} leads back to a file that is being read: {chain}.")
        found |= _merged(_Reading(target, reading.resolve, above))
    for key in tree:
        if not isinstance(key, str):
            raise ConfigurationError(f"{path}: keys are names such as MODEL; got {key!r}.")
    for key, value in flatten(tree).items():
        found[key] = (value, str(path))
    return found


def _load(path: Path) -> dict:
    if not path.is_file():
        raise ConfigurationError(f"There is no configuration file {path}.")
    try:
        tree = read_yaml(path, "configuration file")
    except DataError as error:
        raise ConfigurationError(str(error)) from error.__cause__
    if not isinstance(tree, dict):
        given = "is empty" if tree is None else f"holds a {type(tree).__name__}"
        raise ConfigurationError(f"{path} {given}; expected keys and values, such as 'MODEL: {{DEVICE: cpu}}'.")
    return tree


def _base_path(base: Any, path: Path, resolve: Callable[[str], str | Path] | None) -> Path:
    if not isinstance(base, str) or not base:
        raise ConfigurationError(f"{path}: {BASE} is {base!r}; expected the path of a file, or a list of paths.")
    if "://" in base:
        raise ConfigurationError(f"{path}: {BASE} is {base}. Only local files are read; download it first.")
    local = path.parent / Path(base).expanduser()
    try:
        return _found(local, base, resolve)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {BASE} is {base}. There is no file {local}. {error}") from None


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    """Check one value and set it."""
    *groups, last = key.split(".")
    node: Any = cfg
    for group in groups:
        node = node.get(group) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise ConfigurationError(f"{source}: {_unknown(key)}")
    if isinstance(node[last], dict):
        raise ConfigurationError(
            f"{source}: {key} is a group of keys and cannot be {value!r}. Its keys: {', '.join(node[last])}."
        )
    if isinstance(value, str):
        value = _literal(value, node[last])
    rule = _rules().get(key)
    try:
        value = coerce(value, _defaults()[key], rule.kind if rule else None)
    except ConfigurationError as error:
        advice = old_key_advice(key)
        raise ConfigurationError(
            f"{source}: {key} is {value!r}; expected {error}{f', {rule.legal()}' if rule and rule.legal() else ''}."
            + (f" {advice}" if advice else "")
        ) from None
    if rule and not rule.allows(value):
        raise ConfigurationError(
            f"{source}: {key} is {value!r}; expected {rule.legal()}.{_nearest_choice(rule, value)}"
        )
    node[last] = value


def _literal(text: str, default: Any) -> Any:
    """A string as the Python literal that it may be; for a key of text only a quoted string is one."""
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return text if isinstance(default, str) and not isinstance(value, str) else value


def _unknown(key: str) -> str:
    advice = old_key_advice(key)
    if advice:
        return advice
    known = [*_defaults(), *OLD_KEYS]
    near = (
        difflib.get_close_matches(key, known, n=1, cutoff=0.75)
        or [
            # A right last word in the wrong group is as common as a misspelt word.
            name
            for name in known
            if name.split(".")[-1] == key.split(".")[-1]
        ][:1]
    )
    advice = old_key_advice(near[0]) if near else None
    return (
        f"there is no key {key}." + (f" The nearest is {near[0]}." if near else "") + (f" {advice}" if advice else "")
    )


def _nearest_choice(rule: Key, value: Any) -> str:
    if rule.choices is None or not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(value, [word.strip("'") for word in rule.legal().split(", ")], n=1)
    return f" The nearest is {near[0]!r}." if near else ""


@cache
def _defaults() -> dict[str, Any]:
    return flatten(get_denserc_config())


@cache
def _rules() -> dict[str, Key]:
    return {key.name: key for key in (*RANGES, *KEYS)}


def own_keys() -> Iterable[Key]:
    """The keys that Detectron2 does not have, in the order of their packages; their help can be printed."""
    detectron2 = flatten(get_cfg())
    return [key for key in KEYS if key.name not in detectron2]


def key_rules() -> tuple[Key, ...]:
    """Choices and ranges of all keys, of Detectron2's where DenseRC has one."""
    return (*RANGES, *KEYS)
