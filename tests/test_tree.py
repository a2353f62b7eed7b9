"""The tests mirror the package, files stay short, and no tracked file names a folder or server of one machine."""

import re
import subprocess

import pytest

from tests.paths import ROOT

# Folders of tests without a package of that name.
OTHERS = {"benchmarks", "projects", "fixtures", "fuzz"}
MOST_LINES = 400
# In pieces, so that this file does not name them.
FOLDERS = ("wor" + "k", "roo" + "t", "mn" + "t", "hom" + r"e/\w+", "User" + r"s/\w+")
MACHINES = re.compile(rf"(?<![\w.~-])/(?:{'|'.join(FOLDERS)})/")
SERVERS = re.compile(
    r"https?://(?:localhost|\d+\.\d+\.\d+\.\d+|[\w.-]*(?:artifactory|nexus|mirror|\.internal|\.local\b))"
)


def tracked_texts() -> dict[str, str]:
    """Path -> content of the text files that git knows."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listed.split("\0")):
        try:
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a binary, or removed and not yet committed
    return texts


def test_no_tracked_file_names_a_machine():
    found = {}
    for name, text in tracked_texts().items():
        hits = [match.group() for pattern in (MACHINES, SERVERS) for match in pattern.finditer(text)]
        if hits:
            found[name] = hits
    assert not found, f"name no folder or server of one machine; use tests/paths.py: {found}"


@pytest.mark.parametrize("words", ["see /wor" + "k/shared", "/hom" + "e/me/x", "http" + "://10.0.0.1:8080/x"])
def test_machines_are_found(words):
    assert MACHINES.search(words) or SERVERS.search(words)


@pytest.mark.parametrize("words", ["datasets/work/x.json", "https://github.com/a/b", "http://images.cocodataset.org"])
def test_other_paths_are_not_taken_for_machines(words):
    assert not MACHINES.search(words) and not SERVERS.search(words)


def test_test_folders_mirror_the_package():
    for folder in sorted({path.parent for path in (ROOT / "tests").rglob("test_*.py")}):
        inside = folder.relative_to(ROOT / "tests")
        if not inside.parts or inside.parts[0] in OTHERS:
            continue
        assert list((ROOT / "denserc" / inside).glob("*.py")), f"tests/{inside} has no package denserc/{inside}"


def test_no_source_file_is_too_long():
    lengths = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for folder in ("denserc", "tests", "projects")
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert len(lengths) > 300 and not long, f"more than {MOST_LINES} lines: split them: {long}"
