"""The packaged configs by name.

Their one home is the repository's configs/. A wheel holds a copy of that folder beside this file (setup.py); an
editable install and a checkout read the folder itself.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_PACKAGED = Path(__file__).with_name("configs")
_CHECKOUT = Path(__file__).parents[2] / "configs"


def configs_folder() -> Path:
    """The folder of the configs: the packaged copy, or configs/ of the checkout that this package runs from.

    Raises:
        ConfigurationError: Neither exists.
    """
    for folder in (_PACKAGED, _CHECKOUT):
        if (folder / "Base-FViT.yaml").is_file():
            return folder
    from ..structures import ConfigurationError

    raise ConfigurationError(
        f"The configs are neither in {_PACKAGED} nor in {_CHECKOUT}: the installation is incomplete. "
        "Install DenseRC again with pip."
    )


def list_configs() -> list[str]:
    """Names of all packaged configs, e.g. "ovlvis_vitl14" and "distill/denserc_vitb16"."""
    folder = configs_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def get_config_file(name: str) -> Path:
    """The file of a packaged config.

    Args:
        name: One of `list_configs`, with or without ".yaml"; its folders may be omitted where one config has that name.

    Raises:
        ConfigurationError: An unknown or ambiguous name; the message lists the nearest or the candidates.
    """
    known = list_configs()
    wanted = name.removesuffix(".yaml").removeprefix("./")
    found = [one for one in known if one == wanted] or [one for one in known if one.endswith(f"/{wanted}")]
    if len(found) == 1:
        return configs_folder() / f"{found[0]}.yaml"
    from ..structures import ConfigurationError

    if found:
        raise ConfigurationError(
            f"{name!r} is the name of {len(found)} packaged configs; give one: {', '.join(found)}."
        )
    raise ConfigurationError(f"There is no packaged config {name!r}; {_nearest(wanted, known)}.")


def find_config_file(given: str) -> str:
    """The path of a config given by a path, which is taken first, or by the name of a packaged one.

    Args:
        given: A file, relative to the current directory or absolute, or see `get_config_file`.

    Raises:
        ConfigurationError: Nothing was given, or it is neither; the message names what was looked up.
    """
    from ..structures import ConfigurationError

    if not given:
        raise ConfigurationError("No config is given. --config-file takes a file or the name of a packaged config.")
    if Path(given).is_file():
        return given
    try:
        return str(get_config_file(given))
    except ConfigurationError as error:
        raise ConfigurationError(f"There is no file {Path(given).absolute()}. {error}") from None


def get_config(name: str) -> "CfgNode":
    """A packaged config over DenseRC's defaults, not frozen, so that keys can be set.

    Args:
        name: See `get_config_file`.

    Raises:
        ConfigurationError: See `get_config_file`.
    """
    from ..config import read_config

    cfg = read_config(get_config_file(name))
    cfg.defrost()
    return cfg


def _nearest(wanted: str, known: list[str]) -> str:
    by_stem = {one.rpartition("/")[2]: one for one in reversed(known)}
    stems = get_close_matches(wanted.rpartition("/")[2], by_stem, n=3, cutoff=0.5)
    near = dict.fromkeys([*get_close_matches(wanted, known, n=3, cutoff=0.6), *(by_stem[stem] for stem in stems)])
    if near:
        return f"the nearest: {', '.join(list(near)[:3])} (`denserc configs` lists all)"
    return f"packaged are {', '.join(known)}"
