"""Packages of the extra `denserc[llava]`, and errors that name what to install."""

from importlib import import_module, metadata
from importlib.util import find_spec

from ..structures import ConfigurationError

INSTALL = "pip install 'denserc[llava]'"
_OLDEST, _FIRST_UNKNOWN = (5, 20), 6  # of transformers, as in setup.cfg


def require_transformers() -> None:
    """Check that a supported `transformers` is installed.

    Raises:
        ConfigurationError: It is absent, or of a version that the tower was not written for.
    """
    if not _is_installed("transformers"):
        raise ConfigurationError(f"DenseRC as a vision tower of LLaVA needs the package transformers: {INSTALL}.")
    version = metadata.version("transformers")
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < _OLDEST or numbers[0] >= _FIRST_UNKNOWN:
        raise ConfigurationError(
            f"transformers {version} is installed; DenseRC's vision tower needs at least "
            f"{'.'.join(map(str, _OLDEST))} and less than {_FIRST_UNKNOWN}: {INSTALL}."
        )


def require_training_packages() -> None:
    """Check what `transformers.Trainer` and LoRA need, before transformers.Trainer is imported.

    A folder `datasets/` in the working directory, such as DenseRC's own, makes transformers believe that Hugging Face's
    package datasets is installed; its Trainer then ends with an AttributeError. The real package takes precedence.

    Raises:
        ConfigurationError: A package is absent; the message names it, and the folder that hides its absence.
    """
    require_transformers()
    for name in ("accelerate", "datasets", "peft"):
        if _is_installed(name):
            continue
        spec = find_spec(name)
        folder = "" if spec is None else f" ({next(iter(spec.submodule_search_locations))} is a folder of that name)"
        raise ConfigurationError(f"Training a LLaVA needs the package {name}, which is absent{folder}: {INSTALL}.")
    datasets = import_module("datasets")
    if not hasattr(datasets, "Dataset"):  # imported as a folder before the real package was on the path
        raise ConfigurationError(
            f"'datasets' was imported from {list(datasets.__path__)}, not from the package of Hugging Face. "
            f"Start Python in another folder, or install it before: {INSTALL}."
        )


def _is_installed(name: str) -> bool:
    """True if a package is installed; a folder without `__init__.py` is not a package."""
    try:
        spec = find_spec(name)
    except ValueError:  # sys.modules has it without a spec
        return False
    return spec is not None and spec.origin is not None
