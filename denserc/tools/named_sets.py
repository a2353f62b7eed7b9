"""Data sets as commands name them: registered names, or YAML descriptions of one's own."""

import itertools
from collections.abc import Sequence
from difflib import get_close_matches

from detectron2.data import DatasetCatalog

from ..data import register_from_yaml
from ..data.builtin import register_all
from ..structures import ConfigurationError
from .command_line import data_root


def registered_names(targets: Sequence[str]) -> list[str]:
    """The sets that names and YAML descriptions stand for; built-in and described ones are registered.

    Raises:
        ConfigurationError, DataError: see register_from_yaml.
    """
    register_all(data_root())
    names = [register_from_yaml(target) if target.endswith((".yaml", ".yml")) else (target,) for target in targets]
    return list(dict.fromkeys(itertools.chain.from_iterable(names)))


def registered_set(target: str) -> str:
    """The one set that a name or a YAML description stands for: of a description the last, "val" where it has one.

    Args:
        target: a name or a description.

    Raises:
        ConfigurationError: no such set is registered; or see register_from_yaml.
        DataError: see register_from_yaml.
    """
    name = registered_names([target])[-1]
    known = DatasetCatalog.list()
    if name not in known:
        near = ", ".join(get_close_matches(name, known, n=5, cutoff=0.4)) or "none is like it"
        raise ConfigurationError(
            f"No data set {name!r} is registered, of {len(known)}; the nearest: {near}. One's own is named by its "
            "description, a YAML file (docs/TUTORIAL.md)."
        )
    return name
