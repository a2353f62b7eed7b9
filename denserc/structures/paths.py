"""Questions about files and folders before anything expensive runs: are they there, can they be written?"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import ConfigurationError


def absent_files(paths: Iterable[str]) -> list[str]:
    """The paths that are not files. Each folder is listed once, which is quick on network drives too."""
    listed: dict[str, set[str]] = {}
    absent = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        if name not in listed[folder] and not os.path.isfile(path):  # a name of another normal form of Unicode
            absent.append(path)
    return absent


def require_writable(folder: str | Path) -> None:
    """Check that files can be written to a folder, which is created.

    Raises:
        ConfigurationError: They cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(f"its results cannot be written to {folder}: {error}. Set OUTPUT_DIR.") from error
