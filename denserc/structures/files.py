"""Files that a reader never sees half of."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .errors import DataError


def read_annotation_file(path: str | Path, keys: tuple[str, ...] = ("images", "annotations", "categories")) -> dict:
    """The content of a JSON annotation file.

    Raises:
        DataError: the file is absent, not JSON, or lacks one of the keys.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise DataError(f"The annotation file {path} does not exist. See datasets/README.md for the layout.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"The annotation file {path} cannot be read: {error}.") from error
    absent = [key for key in keys if not isinstance(content, dict) or key not in content]
    if absent:
        raise DataError(f"The annotation file {path} lacks {absent}; expected are {list(keys)}.")
    return content


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON so that a reader never sees half a file."""
    write_text(path, json.dumps(content))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file so that a reader never sees half of it; its folder is made where it is absent."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def weights_digest(module: nn.Module) -> str:
    """A digest of all parameters and buffers: equal if and only if their bits are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_atomically(path: Path, content: dict) -> Path:
    """Writes a file of torch.save whole or not at all, through `<name>.partial` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def kept(file: str | Path, settings: str, compute: Callable[[], dict]) -> dict:
    """The result in `file` if it was made with the same settings, else a new one, written there with its duration.

    Args:
        file: JSON, written whole or not at all.
        settings: everything that decides the result.
        compute: plain JSON values; NaN stays NaN.

    Returns:
        The result with "seconds", the wall time of its computation.
    """
    file = Path(file)
    key = hashlib.sha256(settings.encode()).hexdigest()
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.get("key") == key:
            return found["result"]
    start = time.monotonic()
    result = compute()
    result = {**result, "seconds": round(time.monotonic() - start, 1)}
    with written_whole(file) as partial:
        partial.write_text(json.dumps({"key": key, "result": result}, indent=2) + "\n", encoding="utf-8")
    return result


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` when the block ends and vanishes when it fails.

    It lies beside `path`, whose folder is made where it is absent, and has its suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
