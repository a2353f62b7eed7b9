"""Docstrings, comments, help texts and documents follow the house's language rules, as far as a search can find."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

SOURCES = sorted(
    path
    for pattern in (
        "denserc/**/*.py",
        "benchmarks/*.py",
        "projects/**/*.py",
        "datasets/*.py",
        "scripts/*",
        "tests/**/*.py",
        "configs/**/*.yaml",
        "*.md",
        "docs/*.md",
        "configs/*.md",
        "datasets/*.md",
        "benchmarks/*.md",
        "projects/**/*.md",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.name not in ("CHANGELOG.md", "test_language.py")
)
TESTS = sorted((ROOT / "tests").glob("**/test_*.py"))
LONGEST_NAME = 60
_PICTURES = "image|size|picture|photo|file|pixel|resolution|box|boxes|weights|key|keys|name|names|form|frame"
_ISE = (
    rf"({'|'.join('optim normal initial recogn summar organ minim maxim token visual standard regular'.split())})is\w*"
)
_BRITISH = (
    "behaviour|colours?|coloured|favour\\w*|neighbour\\w*|grey|centre[sd]?|labelled|labelling|modelling|artefacts?"
)
AVOIDED = {
    r"stands?(?!-in)|stood": "is",
    r"lies|lie\b|lying": "is in",
    r"wants?": "requires",
    r"sees|saw|seeing": "receives",
    r"says?|said|tells?": "states, names, gives",
    r"at hand": "available",
    r"in turns": "interleaved",
    r"to the bit|bit for bit|to the last bit": "bitwise identical",
    rf"the originals?(?! ({_PICTURES}))": "name the system: CLIPSelf, DeCLIP, MMDetection F-ViT, CAT-Seg",
    r"so many": "at most N, that many",
    r"alike": "equally, the same",
    r"keepsake|announces?": "snapshot, begin",
    r"(?<!there )(is|are) no (?!longer)": "is not a",
    r"alone": "only",
    rf"{_BRITISH}|{_ISE}": "American spelling",
}
PATTERNS = [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), remedy) for pattern, remedy in AVOIDED.items()]
OPENING = re.compile(r"(What|Which|Of|Who|How|Where|When|Whether)\b", re.IGNORECASE)
ENTRY = re.compile(r"\s+[\w, *]+: (of|how|where|which|what|whom|when)\b", re.IGNORECASE)
ENTRY_REMEDY = "a noun phrase with unit and default"
CODE = re.compile(r"`[^`]*`|\"[^\"]*\"")  # names and quotations are not prose


def prose(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, kind, text) for "first" lines of docstrings, "docstring", "comment", "help" and "document".

    "help" is the help of configuration keys and of options, and the description of a command.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        fenced = False
        for number, line in enumerate(source.splitlines(), start=1):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            elif not fenced and not line.startswith("    "):
                yield number, "document", line
    elif path.suffix != ".py":
        for number, line in enumerate(source.splitlines(), start=1):
            if "#" in line:
                yield number, "comment", line.split("#", 1)[1]
    else:
        for node in ast.walk(ast.parse(source)):
            for text in _attribute_docstrings(node):
                for offset, line in enumerate(text.value.splitlines()):
                    yield text.lineno + offset, "docstring" if offset else "first", line
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node, clean=False)
                for offset, line in enumerate((text or "").splitlines()):
                    yield node.body[0].lineno + offset, "docstring" if offset else "first", line
            elif isinstance(node, ast.Call):
                helps = node.args[2:3] if getattr(node.func, "id", "") == "Key" else []
                for text in (*helps, *(keyword.value for keyword in node.keywords if keyword.arg == "help")):
                    if isinstance(text, ast.Constant):
                        yield text.lineno, "help", str(text.value)
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DESCRIPTION":
                yield node.lineno, "help", getattr(node.value, "value", "")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], "comment", token.string


def _attribute_docstrings(node: ast.AST) -> Iterator[ast.Constant]:
    """Strings that describe the assignment above them."""
    body = getattr(node, "body", None)
    for statement in body[1:] if isinstance(body, list) else ():
        value = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value


def findings(path: Path) -> list[str]:
    """One line per breach of the rules."""
    found = []
    for number, kind, line in prose(path):
        text = CODE.sub("", line)
        hits = [(match[0], remedy) for pattern, remedy in PATTERNS for match in pattern.finditer(text)]
        if kind in ("first", "help") and OPENING.match(text):
            hits.append((text.split()[0], "an imperative or a noun phrase"))
        if kind == "docstring" and (entry := ENTRY.match(text)):
            hits.append((entry[0].strip(), ENTRY_REMEDY))
        found += [f"{path.relative_to(ROOT)}:{number}: {word!r} -> {remedy}: {line.strip()}" for word, remedy in hits]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_prose_follows_the_house_rules(path):
    found = findings(path)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", TESTS, ids=[str(path.relative_to(ROOT)) for path in TESTS])
def test_names_of_tests_are_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = [name for name in names if name.startswith("test_") and len(name) > LONGEST_NAME]
    assert not long, f"At most {LONGEST_NAME} characters: {long}"


def test_dialect_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_language.ROOT", tmp_path, raising=False)
    file = tmp_path / "module.py"
    file.write_text(
        '"""What a thing wants.\n\n    Args:\n        size: of the box.\n    """\n\nX = 1  # lies at hand\n'
        'parser.add_argument("--size", help="of the box, in turns")\nKey("SIZE", 1, "Alike for all.")\n',
        encoding="utf-8",
    )
    found = "\n".join(findings(file))
    for word in ("'wants'", "'What'", "'size: of'", "'lies'", "'at hand'", "'of'", "'in turns'", "'Alike'"):
        assert word in found
