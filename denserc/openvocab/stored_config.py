"""The configuration in a model's file: checked like a user's, except that it cannot choose files or folders."""

from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from detectron2.config import CfgNode

from ..engine.renamed_keys import convert_detector_config
from ..structures import CheckpointError, ConfigurationError, Key, coerce, flatten
from ..structures.records import short

# Keys and groups of keys that name files, folders, data sets or devices of the machine that wrote the file.
NOT_TAKEN = (
    "OUTPUT_DIR",
    "DATASETS",
    "DISTILL",
    "LLAVA",
    "MODEL.DEVICE",
    "MODEL.ENCODER.CHECKPOINT",
    "MODEL.ENCODER.WEIGHTS",
    "MODEL.FVIT.CACHE",
    "MODEL.LLAVA",
    "MODEL.VOCABULARY.CACHE_DIR",
    "MODEL.VOCABULARY.EMBEDDINGS",
    "MODEL.WEIGHTS",
    "TEST.PROPOSALS",
)
_MAX_NODES = 100_000  # a few aliases of YAML make a small text a huge configuration


def stored_config(metadata: dict, source: object) -> dict:
    """The configuration in a checkpoint's metadata as nested mappings, with the present names of its keys.

    Args:
        metadata: Metadata of the file.
        source: Path of the file, for messages.

    Raises:
        CheckpointError: There is none, it is damaged, or the model was trained with an option that exists no more.
    """
    if "config" not in metadata:
        raise CheckpointError(
            f"{source} carries no configuration. Build the model from a config file, with its path as MODEL.WEIGHTS."
        )
    return convert_detector_config(parse_config(metadata["config"], source), str(source))


def parse_config(text: Any, source: object) -> dict:
    """A configuration as nested mappings of plain values.

    Raises:
        CheckpointError: It is not text, not YAML, or holds other values; the message names the file.
    """
    damaged = f"The configuration in {source} is damaged"
    if not isinstance(text, str):
        raise CheckpointError(f"{damaged}: it is {short(text)}, not text. Copy or write the file anew.")
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that cannot be
        raise CheckpointError(f"{damaged}: it is not YAML of plain values ({error}).") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{damaged}: {short(tree)} is not a mapping. Copy or write the file anew.")
    for count, (name, value) in enumerate(_nodes(tree)):
        if count > _MAX_NODES or name.count(".") > 20:
            raise CheckpointError(f"{damaged}: it is too large or contains itself, at {name[:80]}.")
        if value is not None and not isinstance(value, str | bool | int | float | list | tuple | dict):
            raise CheckpointError(f"{damaged}: {name} is {short(value)}, not a plain value.")
    return tree


def _nodes(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything inside a value; lazily, as it may be endless."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
        for key in value:
            if not isinstance(key, str) or not key or "." in key:
                yield f"{name}.{short(key)}", {key}  # a set, which the caller refuses
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, inner in items:
        inner_name = f"{name}.{key}" if name else str(key)
        yield inner_name, inner
        yield from _nodes(inner, inner_name)


def merge_stored_config(cfg: CfgNode, tree: dict, keys: Iterable[Key], source: object) -> None:
    """Set the values of a stored configuration in one with defaults, except those of `NOT_TAKEN`.

    Keys that the defaults lack, of other versions or of a user's own architecture, are added.

    Args:
        cfg: Configuration with defaults. Changed.
        tree: Result of `stored_config`.
        keys: Rules of the keys: choices and ranges.
        source: Path of the file, for messages.

    Raises:
        CheckpointError: A value is of another type or out of range; the message names file, key and value.
    """
    known, rules = flatten(cfg), {key.name: key for key in keys}
    groups = {name[:end] for name in known for end in range(len(name)) if name[end] == "."}
    for name, value in _leaves(tree):
        if any(name == one or name.startswith(f"{one}.") for one in NOT_TAKEN):
            continue
        if name in known:
            value = _checked(name, value, known[name], rules.get(name), source)
        elif name in groups and value != {}:
            raise _fault(name, value, "a group of keys", source)
        elif value == {}:
            continue
        *above, last = name.split(".")
        node = cfg
        for depth, group in enumerate(above):
            if ".".join(above[: depth + 1]) in known:
                raise _fault(".".join(above[: depth + 1]), {last: value}, "a value and not a group", source)
            node = node.setdefault(group, CfgNode(new_allowed=True))
        node[last] = value


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything that is not a group; an empty group counts as a value."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _checked(name: str, value: Any, default: Any, rule: Key | None, source: object) -> Any:
    kind = rule.kind if rule else None
    if value is None and default is not None:
        raise _fault(name, value, f"a value such as {default!r}", source)
    try:
        value = coerce(value, default, kind)
    except ConfigurationError as error:
        raise _fault(name, value, str(error), source) from None
    if rule and not rule.allows(value):
        raise _fault(name, value, rule.legal(), source)
    return value


def _fault(name: str, value: Any, expected: str, source: object) -> CheckpointError:
    return CheckpointError(
        f"The configuration in {source} is damaged: {name} is {short(value)}, expected is {expected}. Copy or write "
        "the file anew."
    )
