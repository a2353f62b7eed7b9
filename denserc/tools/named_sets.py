"""Data sets as commands name them: registered names, or YAML descriptions of one's own."""

import itertools
from collections.abc import Sequence

from ..data import register_from_yaml
from ..data.builtin import register_all
from .command_line import data_root


def registered_names(targets: Sequence[str]) -> list[str]:
    """The sets that names and YAML descriptions stand for; built-in and described ones are registered.

    Raises:
        ConfigurationError, DataError: see register_from_yaml.
    """
    register_all(data_root())
    names = [register_from_yaml(target) if target.endswith((".yaml", ".yml")) else (target,) for target in targets]
    return list(dict.fromkeys(itertools.chain.from_iterable(names)))
