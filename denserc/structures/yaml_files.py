"""YAML files of plain values: no Python objects, no repeated keys, no aliases that grow without end."""

from pathlib import Path
from typing import Any

import yaml

from .errors import DataError
from .records import read_text, short

_MOST_NODES = 1_000_000


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that is given twice; PyYAML's own drops the first silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        given: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in given and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if key is not None:
                given[key] = key_node
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: str | Path, what: str, *, advice: str = "Correct its path.") -> Any:
    """Read a YAML file of plain values; see `read_text` for the arguments.

    Returns:
        The content; None for an empty file.

    Raises:
        DataError: The file is absent, not UTF-8, not YAML, has Python tags, repeated keys or aliases of itself.
    """
    text = read_text(path, what, advice=advice)
    loader = None
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        _require_finite_size(node)
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        given = "nested too deeply to be read"
    # ValueError: a date such as 2026-13-45; TypeError, AttributeError: values of tags such as !!omap on other content.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        given = f"not a readable YAML file of plain values (Python tags are refused): {' '.join(str(error).split())}"
        if text.startswith("version https://git-lfs"):
            given = "a pointer of Git LFS, not the file itself"
        elif text.lstrip()[:1] == "<":
            given = f"a web page or XML, not YAML: it begins with {short(text.strip()[:40])}"
    finally:
        if loader is not None:
            loader.dispose()
    raise DataError(f"The {what} {path} is {given}. Correct the file, or name another one.")


def _require_finite_size(node: yaml.Node | None) -> None:
    """Refuse aliases that contain themselves, or that expand to more than a million values."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(one: yaml.Node) -> int:
        if id(one) in open_nodes:
            raise yaml.YAMLError("an alias contains itself")
        if id(one) not in sizes:
            open_nodes.add(id(one))
            below = one.value if isinstance(one, yaml.SequenceNode) else []
            below = [child for pair in one.value for child in pair] if isinstance(one, yaml.MappingNode) else below
            sizes[id(one)] = 1 + sum(map(size, below))
            open_nodes.remove(id(one))
        return sizes[id(one)]

    if node is not None and size(node) > _MOST_NODES:
        raise yaml.YAMLError("its aliases expand to more than a million values")
