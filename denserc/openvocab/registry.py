"""Detectron2's registries, with an error for the user where a config names what does not fit."""

from typing import TypeVar

from fvcore.common.registry import Registry

from ..structures import ConfigurationError

Part = TypeVar("Part")


def registered(registry: Registry, name: str, key: str, base: type[Part]) -> type[Part]:
    """The class that a configuration names.

    Args:
        registry: One of Detectron2's; a module of your own adds its class by `@REGISTRY.register()`.
        name: Value of the key.
        key: Key of the configuration, for the message.
        base: Class whose constructor arguments and outputs the rest of the model relies on.

    Raises:
        ConfigurationError: Nothing of that name, or another kind of part; the message lists the legal names.
    """
    fitting = {found: part for found, part in registry if isinstance(part, type) and issubclass(part, base)}
    if name not in fitting:
        raise ConfigurationError(
            f"{key} is {name!r}; legal are {', '.join(map(repr, sorted(fitting)))}: {base.__name__} and its registered "
            "subclasses."
        )
    return fitting[name]
