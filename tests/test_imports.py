"""Packages import in the one direction of docs/ARCHITECTURE.md, and read neither environment nor command line."""

import ast
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = "denserc"

# Which packages of ours each may import besides itself; "config" and "launch" are modules of denserc/.
MAY_IMPORT = {
    "structures": set(),
    "encoders": {"structures"},
    "data": {"structures"},
    "engine": {"structures"},
    "construction": {"structures", "encoders"},
    "analysis": {"structures", "encoders", "construction"},
    "openvocab": {"structures", "encoders", "data", "engine", "construction"},
    "distillation": {"structures", "encoders", "data", "engine", "construction"},
    "evaluation": {"structures", "data"},
    "visualization": {"structures", "data"},
}
MAY_IMPORT["mllm"] = {"structures", "encoders", "construction"}
MAY_IMPORT["detection"] = MAY_IMPORT["openvocab"] | {"openvocab"}
MAY_IMPORT["segmentation"] = MAY_IMPORT["openvocab"] | {"openvocab"}
MAY_IMPORT["llava"] = {"structures", "data", "engine", "construction", "evaluation", "mllm"}
MAY_IMPORT["config"] = set(MAY_IMPORT)  # gathers each package's own keys
MAY_IMPORT["model_zoo"] = {"structures", "config"}
MAY_IMPORT["threads"] = set()
MAY_IMPORT["launch"] = {"structures", "data", "config", "model_zoo", "threads"}
MAY_IMPORT["analysis"] |= {"visualization"}
MAY_IMPORT["api"] = {"structures", "engine", "construction", "openvocab", "detection", "segmentation", "config"}
MAY_IMPORT["predictor"] = {"structures", "data", "engine", "openvocab", "visualization", "api"}
LIBRARY = set(MAY_IMPORT)
MAY_IMPORT["miniature"] = LIBRARY
MAY_IMPORT["tools"] = LIBRARY | {"miniature"}
MAY_IMPORT["commands"] = MAY_IMPORT["tools"] | {"tools"}
MAY_IMPORT["cli"] = {"structures", "commands", "threads"}
MAY_IMPORT["__main__"] = {"cli"}
# The only places that may look at the environment or the command line.
COMMANDS = {"cli", "launch", "threads"}


def import_targets(source: str, module: tuple[str, ...], is_package: bool) -> set[tuple[tuple[str, ...], str]]:
    """Everything that a source imports, at any depth of its code, as (dotted parts, name taken from it or "").

    Args:
        module: The source's dotted name in parts, e.g. ("denserc", "data", "splits").
        is_package: The source is the __init__.py of `module`.
    """
    found = set()
    parent = module if is_package else module[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {(tuple(alias.name.split(".")), "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = parent[: len(parent) - (node.level - 1)] if node.level else ()
            stem = (*above, *(node.module.split(".") if node.module else ()))
            found |= {(stem, alias.name) for alias in node.names}
    return found


def imported_packages(source: str, module: tuple[str, ...], is_package: bool = False) -> set[str]:
    """First components below `denserc` of what a module's source imports."""
    targets = {(*stem, *filter(None, [name])) for stem, name in import_targets(source, module, is_package)}
    return {target[1] for target in targets if target[0] == PACKAGE and len(target) > 1}


def surroundings_read(source: str) -> list[str]:
    """Uses of os.environ, os.getenv and sys.argv, however they were imported."""
    hidden = {("os", "environ"), ("os", "getenv"), ("sys", "argv")}
    tree = ast.parse(source)
    alias = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            alias.update({a.asname or a.name: a.name for a in node.names if a.name in ("os", "sys")})
    uses = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (alias.get(node.value.id), node.attr) in hidden:
                uses.append(f"line {node.lineno}: {alias[node.value.id]}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            uses += [
                f"line {node.lineno}: {node.module}.{a.name}" for a in node.names if (node.module, a.name) in hidden
            ]
    return uses


def modules() -> list[tuple[Path, tuple[str, ...], bool]]:
    """(file, dotted parts, is it a package's __init__) of every source below denserc/."""
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found.append((path, parts[:-1] if is_package else parts, is_package))
    return found


ALL = modules()


@pytest.mark.parametrize("path, module, is_package", ALL, ids=[".".join(m) for _, m, _ in ALL])
def test_module_imports_only_what_lies_below_it(path, module, is_package):
    imported = imported_packages(path.read_text(encoding="utf-8"), module, is_package)
    if len(module) == 1:
        # denserc/__init__.py names them for type checkers; tests/test_api.py: they are imported lazily.
        allowed = {"api", "model_zoo", "predictor"}
    else:
        assert module[1] in MAY_IMPORT, f"{module[1]} has no line in the architecture: add it to MAY_IMPORT"
        allowed = MAY_IMPORT[module[1]] | {module[1], "__version__"}  # the version is a constant, not a package
    assert imported <= allowed, f"{path.relative_to(ROOT)} imports {sorted(imported - allowed)}"


@pytest.mark.parametrize("path, module, is_package", ALL, ids=[".".join(m) for _, m, _ in ALL])
def test_only_commands_read_environment_or_command_line(path, module, is_package):
    if len(module) > 1 and module[1] in COMMANDS:
        return
    uses = surroundings_read(path.read_text(encoding="utf-8"))
    assert not uses, f"{path.relative_to(ROOT)} reads its surroundings: {uses}"


def imported_modules(source: str, module: tuple[str, ...], is_package: bool) -> set[tuple[str, ...]]:
    """Modules and packages of ours that a source imports, as dotted parts."""
    known = {parts for _, parts, _ in ALL}
    targets = {
        target if (target := (*stem, name)) in known else stem
        for stem, name in import_targets(source, module, is_package)
    }
    return (targets & known) - {module}


def circles(graph: dict) -> list[list]:
    """The groups of nodes that reach each other."""
    reach = {node: set(graph[node]) for node in graph}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    return sorted({tuple(sorted(o for o in reach[n] if n in reach[o])) for n in graph if n in reach[n]})


def test_no_files_import_each_other_in_a_circle():
    graph = {}
    for path, module, is_package in ALL:
        if not is_package:  # a package's face only hands names on; who imports it imports what it hands on
            graph[module] = imported_modules(path.read_text(encoding="utf-8"), module, is_package)
    faces = {
        module: imported_modules(path.read_text(encoding="utf-8"), module, True)
        for path, module, is_package in ALL
        if is_package and len(module) > 1
    }

    def behind(target, seen=()):
        if target not in faces:
            return {target} & graph.keys()
        return {end for t in faces[target] if t not in seen for end in behind(t, (*seen, target))}

    files = {m: {end for target in targets for end in behind(target)} - {m} for m, targets in graph.items()}
    assert circles(files) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b", "c")]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_the_table_has_no_cycle():
    done, remaining = set(), dict(MAY_IMPORT)
    while remaining:
        free = {name for name, needs in remaining.items() if needs <= done}
        assert free, f"these packages import each other in a circle: {sorted(remaining)}"
        done |= free
        remaining = {name: needs for name, needs in remaining.items() if name not in free}


@pytest.mark.parametrize(
    "source, expected",
    [
        ("from ..evaluation import x", {"evaluation"}),
        ("from .. import evaluation", {"evaluation"}),
        ("from denserc.evaluation.build import y", {"evaluation"}),
        ("from denserc import evaluation", {"evaluation"}),
        ("import denserc.evaluation.build as b", {"evaluation"}),
        ("def f():\n    from ..evaluation import x", {"evaluation"}),
        ("from .splits import x", {"data"}),
        ("from . import splits", {"data"}),
        ("import torch\nfrom os import path", set()),
    ],
)
def test_imports_are_seen_however_they_are_written(source, expected):
    assert imported_packages(source, ("denserc", "data", "registration")) == expected


def test_imports_of_a_package_file_are_resolved_from_the_package():
    assert imported_packages("from ..structures import x", ("denserc", "data"), is_package=True) == {"structures"}


@pytest.mark.parametrize(
    "source", ["import os\nos.environ['A']", "from os import getenv", "import sys as s\ns.argv", "from sys import argv"]
)
def test_surroundings_are_seen_however_they_are_read(source):
    assert len(surroundings_read(source)) == 1


def test_paths_and_exits_are_no_surroundings():
    assert surroundings_read("import os, sys\nos.replace('a', 'b')\nsys.exit(0)") == []
