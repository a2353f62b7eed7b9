"""scripts/bootstrap.sh with a stand-in interpreter: the commands that it runs, and its errors."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT

SCRIPT = ROOT / "scripts" / "bootstrap.sh"

# Logs its arguments; a file "has_detectron2" beside the log makes `import detectron2` succeed.
INTERPRETER = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "{folder}/log"
case "$*" in
    *version_info*) echo "{version}" ;;
    "--version") echo "Python {version}.0" ;;
    "-m venv "*) mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
    "-c import detectron2") [ -e "{folder}/has_detectron2" ] ;;
    *sysconfig*) echo "{folder}/site-packages" ;;
esac
"""


@pytest.fixture
def path(tmp_path):
    """A folder for PATH that has what the script needs of the system, and no Python."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("bash", "env", "basename", "dirname", "mkdir", "cp"):
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def put_python(path: Path, name: str, version: str) -> None:
    """Write a stand-in for `name`; version "" makes an interpreter out of range."""
    (path / name).write_text(INTERPRETER.format(folder=path.parent, version=version))
    (path / name).chmod(0o755)


def bootstrap(path: Path, venv: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(path / "bash"), str(SCRIPT), str(venv)],
        capture_output=True,
        text=True,
        env={"PATH": str(path), "HOME": os.environ.get("HOME", "/"), **environment},
        timeout=60,
    )


def commands(path: Path) -> list[str]:
    return (path.parent / "log").read_text().splitlines()


def test_installs_the_package_then_detectron2(path):
    put_python(path, "python3", "3.11")
    venv = path.parent / "an environment"
    done = bootstrap(path, venv)
    assert done.returncode == 0, done.stderr
    pips = [line for line in commands(path) if " install " in line]
    assert len(pips) == 2
    assert "--editable" in pips[0] and pips[0].endswith("[dev]")
    for part in (
        "--no-deps",
        "--only-binary=:all:",
        "--python-version 3.10",
        "--platform any",
        "sal-detectron2==0.7.2",
    ):
        assert part in pips[1]
    assert f"--target {path.parent}/site-packages" in pips[1]


def test_an_importable_detectron2_is_never_replaced(path):
    put_python(path, "python3", "3.11")
    (path.parent / "has_detectron2").touch()
    done = bootstrap(path, path.parent / "venv")
    assert done.returncode == 0, done.stderr
    assert not any("sal-detectron2" in line for line in commands(path))
    assert "stays as it is" in done.stdout
    # Found in the interpreter that the environment is made with, it is lent to the environment.
    assert any("-m venv --system-site-packages" in line for line in commands(path))


def test_an_existing_environment_is_not_made_again(path):
    put_python(path, "python3", "3.11")
    for _ in range(2):
        assert bootstrap(path, path.parent / "venv").returncode == 0
    assert sum("-m venv" in line for line in commands(path)) == 1


def test_suitable_interpreter_replaces_a_default_out_of_range(path):
    put_python(path, "python3", "")
    put_python(path, "python3.10", "3.10")
    done = bootstrap(path, path.parent / "venv")
    assert done.returncode == 0, done.stderr
    assert "Python 3.10" in done.stdout
    assert any(line.startswith("python3.10 -m venv") for line in commands(path))


@pytest.mark.parametrize("names", [(), ("python3", "python3.13")])
def test_without_a_suitable_interpreter_it_says_so(path, names):
    for name in names:
        put_python(path, name, "")
    done = bootstrap(path, path.parent / "venv")
    assert done.returncode != 0
    assert "no Python 3.10 to 3.13 found" in done.stderr and "PYTHON=" in done.stderr
    assert not (path.parent / "venv").exists()


def test_the_named_interpreter_is_used_or_refused(path):
    put_python(path, "python3", "3.11")
    put_python(path, "mine", "3.12")
    assert bootstrap(path, path.parent / "venv", PYTHON=str(path / "mine")).returncode == 0
    assert any(line.startswith("mine -m venv") for line in commands(path))
    done = bootstrap(path, path.parent / "other", PYTHON="/no/such/python")
    assert done.returncode != 0 and "PYTHON=/no/such/python" in done.stderr
