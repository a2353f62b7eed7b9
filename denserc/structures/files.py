"""JSON and checkpoint files, results cached on disk, and digests of weights."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .atomic import atomic_path
from .errors import DataError
from .records import read_json

logger = logging.getLogger(__name__)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, *, indent: int | None = None) -> None:
    """Write strict JSON atomically: see `finite_or_null` for what JSON has no word for."""
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)  # without a copy of a large annotation file
    except (TypeError, ValueError):
        text = json.dumps(finite_or_null(content), indent=indent, allow_nan=False)
    write_text(path, text + "\n")


def write_atomically(path: str | Path, content: dict) -> Path:
    """Write a file of torch.save atomically; returns its path.

    Raises:
        WriteError: The file cannot be written; `path` is what it was before.
    """
    path = Path(path)
    with atomic_path(path, size=_tensor_bytes(content)) as partial, partial.open("wb") as file:
        torch.save(content, file)
    return path


def _tensor_bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        content = content.values()
    elif not isinstance(content, list | tuple):
        return 0
    return sum(_tensor_bytes(one) for one in content)


def finite_or_null(content: Any) -> Any:
    """Copy nested results as plain JSON values, with None for a float that is not finite.

    An object with a method `to_json`, such as a result table, is replaced by what that returns.
    """
    if hasattr(content, "to_json"):
        return finite_or_null(content.to_json())
    if isinstance(content, Mapping):
        return {str(key): finite_or_null(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite_or_null(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not math.isfinite(content) else content


def cached_result(file: str | Path, settings: str, compute: Callable[[], dict]) -> dict:
    """Return the result in `file` if it was made with the same settings, else compute and write it.

    Args:
        file: JSON file, written atomically.
        settings: Everything that determines the result.
        compute: Function that returns plain JSON values; NaN stays NaN.

    Returns:
        The result with "seconds", the wall time of its computation.
    """
    file = Path(file)
    key = hashlib.sha256(settings.encode()).hexdigest()
    found = _cached(file) if file.is_file() else {}
    if found.get("key") == key:
        return found["result"]
    start = time.monotonic()
    result = compute()
    result = {**result, "seconds": round(time.monotonic() - start, 1)}
    write_text(file, json.dumps({"key": key, "digest": _digest_of(result), "result": result}, indent=2) + "\n")
    return result


def _cached(file: Path) -> dict:
    """The content of a result's file; empty, with a warning, if it is damaged. Files of version 0.2 have no digest."""
    try:
        found = read_json(file, "cached result")
    except DataError as error:
        why = str(error)
    else:
        whole = isinstance(found, dict) and isinstance(found.get("result"), dict)
        if whole and found.get("digest", _digest_of(found["result"])) == _digest_of(found["result"]):
            return found
        why = f"{file} is damaged."
    logger.warning("The result is computed again, because the cache is not believed: %s", why)
    return {}


def _digest_of(result: dict) -> str:
    """SHA-256 (hex) of plain JSON values."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def read_annotation_file(path: str | Path, keys: tuple[str, ...] = ("images", "annotations", "categories")) -> dict:
    """Read a JSON annotation file.

    Raises:
        DataError: The file is absent, not UTF-8, not JSON, or lacks one of the keys.
    """
    content = read_json(path, "annotation file", advice="See datasets/README.md for the layout.")
    absent = [key for key in keys if not isinstance(content, dict) or key not in content]
    if absent:
        raise DataError(f"The annotation file {path} lacks {absent}; expected are {list(keys)}.")
    return content


def whole_lines_size(path: Path) -> int:
    """Size in bytes of a file up to its last whole line: a process may have ended in the middle of one."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - (1 << 20))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def drop_cut_line(path: Path) -> bool:
    """Truncate a file after its last whole line. Returns whether anything was removed."""
    whole = whole_lines_size(path)
    if whole == path.stat().st_size:
        return False
    with path.open("r+b") as file:
        file.truncate(whole)
    return True


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file; "" for no path."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


def weights_digest(module: nn.Module) -> str:
    """SHA-256 digest of all parameters and buffers: equal if and only if they are bitwise identical."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
