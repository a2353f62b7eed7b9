"""Commands, Python blocks and code names of the documents, as text; `test_documented_commands.py` checks them."""

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from denserc.cli import COMMANDS
from tests.paths import ROOT

PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    + [ROOT / folder / "README.md" for folder in ("configs", "datasets", "benchmarks")]
)
SCRIPTS = sorted([*(ROOT / "projects").glob("*/*.py"), *(ROOT / "datasets").glob("*.py")])
SHELLS = ("bash", "sh", "shell", "console")
START = re.compile(r"(?:\w+=\S* )*(?:denserc|python3?|torchrun|make|pip|git)(?: |$)")
ASSIGNMENT = re.compile(r"(\w+)=(\S+|'[^']*'|\"[^\"]*\")\s*(?:#.*)?")
INLINE = re.compile(r"(?<!`)`((?:denserc|python3?|torchrun|make) [^`]+)`(?!`)")
KEY_VALUE = re.compile(r"(?<!`)`((?:DATALOADER|DATASETS|DISTILL|INPUT|MODEL|SOLVER|TEST)\.[A-Z0-9_.]+\s+[^`]+)`(?!`)")
DOTTED = re.compile(r"`(denserc(?:\.[A-Za-z_]\w*)+)")
NOT_MODULES = (".safetensors", ".pt", ".pth", ".yaml")


@dataclass(frozen=True)
class Command:
    """One command line of a page.

    Args:
        place: Page and line, or the help that has it.
        text: The line with its continuations, comments included.
        variables: Values of the shell variables that the page sets before it.
    """

    place: str
    text: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Consecutive lines of code of a page.

    Args:
        place: Page and first line.
        language: Language of a fenced block, "" for none; "indented" without a fence, four spaces deep.
        lines: Without the indentation.
    """

    place: str
    language: str
    lines: tuple[str, ...]


def blocks(name: str, text: str) -> Iterator[Block]:
    """The code of a page, fenced and indented."""
    lines, start, language = [], 0, None
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fence = re.match(r"\s*```(\w*)\s*$", line)
        indented = language in (None, "indented") and line.startswith("    ")
        if lines and (fence if language != "indented" else not indented):
            yield Block(f"{name}:{start}", language, tuple(textwrap.dedent("\n".join(lines)).splitlines()))
        if fence:
            closes = language not in (None, "indented")
            lines, start, language = [], number + 1, None if closes else fence[1]
        elif language not in (None, "indented"):
            lines.append(line)
        elif indented:
            lines, start = (lines, start) if language else ([], number)
            lines, language = [*lines, line], "indented"
        else:
            lines, language = [], None


def logical_lines(lines: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(offset, text) with continued lines joined; without empty lines and comments."""
    joined, first = "", 0
    for offset, line in enumerate(lines):
        first = first if joined else offset
        joined = f"{joined} {line.strip()}".removesuffix("\\").strip()
        if line.rstrip().endswith("\\"):
            continue
        if joined.strip() and not joined.startswith("#"):
            yield first, re.sub(r"\s+", " ", joined).removeprefix("$ ").strip()
        joined = ""


def commands_in(name: str, text: str) -> Iterator[Command]:
    """The command lines of a page: all lines of shell blocks, and those of other blocks that begin as one."""
    variables: dict[str, str] = {}
    for block in blocks(name, text):
        if block.language == "python":
            continue
        page, _, start = block.place.rpartition(":")
        for offset, line in logical_lines(block.lines):
            assignment = ASSIGNMENT.fullmatch(line)
            if assignment:
                variables[assignment[1]] = assignment[2].strip("'\"")
            elif block.language in SHELLS or START.match(line):
                yield Command(f"{page}:{int(start) + offset}", line, dict(variables))


def page_commands() -> list[Command]:
    """The command lines of all documents."""
    return [
        command
        for page in PAGES
        for command in commands_in(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
    ]


def help_commands() -> list[Command]:
    """The examples of `denserc COMMAND --help`, and those of the scripts' docstrings."""
    found = []
    for name, command in COMMANDS.items():
        found += commands_in(f"denserc {name} --help", help_examples(name, command.module))
    for script in SCRIPTS:
        text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")), clean=False) or ""
        found += commands_in(script.relative_to(ROOT).as_posix(), text)
    return found


def help_examples(name: str, module: str) -> str:
    """The examples of a command's help as a page with one shell block."""
    epilog = importlib.import_module(module).parser().epilog.removeprefix("example:\n")
    return f"```bash\n{textwrap.dedent(epilog)}\n```\n"


def prose(text: str) -> str:
    """A page without its fenced and indented code."""
    kept, fenced = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            kept.append(line)
    return "\n".join(kept)


def inline_code(pattern: re.Pattern) -> list[Command]:
    """Code in the running text of all documents, its first group of each match."""
    found = []
    for page in PAGES:
        name, text = page.relative_to(ROOT).as_posix(), prose(page.read_text(encoding="utf-8"))
        found += [Command(name, " ".join(match[1].split())) for match in pattern.finditer(text)]
    return found


def python_blocks() -> list[Block]:
    """The fenced Python blocks of all documents."""
    pages = ((page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")) for page in PAGES)
    return [block for name, text in pages for block in blocks(name, text) if block.language == "python"]


def names_used(source: str) -> Iterator[str]:
    """Dotted names of denserc in Python code: imported ones, and attributes of `denserc`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "denserc")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "denserc":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "denserc":
            yield f"denserc.{node.attr}"


def names_in_prose(text: str) -> Iterator[str]:
    """Dotted names of denserc in the running text of a page."""
    yield from (match[1] for match in DOTTED.finditer(prose(text)) if not match[1].endswith(NOT_MODULES))


def resolve(name: str) -> object:
    """The object of a dotted name; AttributeError or ModuleNotFoundError if there is none."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError as error:
            if length == 1 or not name.startswith(error.name or ""):
                raise
            continue
        for word in words[length:]:
            found = getattr(found, word)
        return found
    raise AssertionError("unreachable")
