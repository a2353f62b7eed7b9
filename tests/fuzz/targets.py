"""Kinds of files, and what is run on damaged ones: a function that returns after success or raises."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Args:
        name: Name of the test.
        valid: Undamaged content, which is read.
        inputs: Strategy of damaged content.
        run: Function of (folder with valid files, content); raises on what it refuses.
    """

    name: str
    valid: Any
    inputs: st.SearchStrategy
    run: Callable[[Path, Any], None]


TARGETS: dict[str, Target] = {}


def target(name: str, valid: Any, inputs: st.SearchStrategy):
    """Register a function as the target of this name."""

    def add(run: Callable[[Path, Any], None]) -> Callable[[Path, Any], None]:
        TARGETS[name] = Target(name, valid, inputs, run)
        return run

    return add


def written(folder: Path, name: str, content: bytes) -> Path:
    """Write the damaged file."""
    path = folder / name
    path.write_bytes(content)
    return path


def require(holds: bool, what: str) -> None:
    """A silent fault is a failure too."""
    if not holds:
        raise AssertionError(f"accepted silently: {what}")
