"""Results that stay on disk, so that a long series of runs goes on where it was stopped."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from ..structures import written_whole


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
