"""docs/DETECTRON2.md: its classes, functions and config keys exist, ours and Detectron2's."""

import ast
import re
from functools import cache
from pathlib import Path

import detectron2
import pytest

from denserc.config import get_denserc_config
from tests.documented_commands import prose
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "DETECTRON2.md").read_text(encoding="utf-8")
CONFIG = get_denserc_config()
UPSTREAM = Path(detectron2.__file__).parent
OURS = re.findall(r"\[`([\w.]+)`\]\(\.\./(denserc/[\w/]+\.py)\)", PAGE)
THEIRS = [
    (name, path)
    for names, path in re.findall(r"((?:`[\w.]+`,? )+)`([\w/]+\.py)`", PAGE)
    for name in re.findall(r"`([\w.]+)`", names)
]
KEYS = sorted(set(re.findall(r"\b(?:[A-Z][A-Z0-9]*_?)+(?:\.[A-Z][A-Z0-9_]*)+\b", PAGE)))


@cache
def defined(file: Path) -> set[str]:
    """Names of a module: functions, classes, "Class.method", and variables."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("name, path", OURS)
def test_our_name_is_defined_in_the_linked_file(name, path):
    in_file = name if name in defined(ROOT / path) else name.rpartition(".")[2]
    module = path.removeprefix("denserc/").removesuffix(".py").replace("/", ".")
    assert in_file in defined(ROOT / path) and (in_file == name or f"{module}.{in_file}" == name)


@pytest.mark.parametrize("name, path", THEIRS)
def test_name_of_detectron2_is_defined_in_its_file(name, path):
    assert name in defined(UPSTREAM / path)


def test_the_page_was_read_at_all():
    assert len(OURS) > 80 and len(THEIRS) > 70 and len(KEYS) > 60
    assert len({name for name, _ in OURS}) > 80


@pytest.mark.parametrize("key", KEYS)
def test_key_or_group_exists(key):
    node = CONFIG
    for word in key.split("."):
        assert word in node, f"there is no key {key}"
        node = node[word]


def test_every_registered_class_is_on_the_page():
    registered = set()
    for file in (ROOT / "denserc").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            decorators = getattr(node, "decorator_list", [])
            if any("REGISTRY.register" in ast.unparse(one) for one in decorators):
                registered.add(node.name)
    assert len(registered) >= 9 and registered <= {name for name, _ in OURS}


def test_what_is_used_as_it_is_is_imported_or_called():
    """Each name occurs in the sources of the package; nothing of them is defined there."""
    section = re.search(r"^## Used as they are\n(.*?)(?=^## )", prose(PAGE) + "\n", re.M | re.S)[1]
    names = set(re.findall(r"`(\w+)`", section.partition("\n\n")[0]))
    sources = {file: file.read_text(encoding="utf-8") for file in (ROOT / "denserc").rglob("*.py")}
    assert len(names) > 40
    assert [name for name in names if not re.search(rf"\b{name}\b", "\n".join(sources.values()))] == []
    own = set().union(*(re.findall(r"^(?:class|def) (\w+)", text, re.M) for text in sources.values()))
    assert names & own == set()
