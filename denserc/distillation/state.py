"""The resume state: written atomically, read strictly, never the blend."""

import logging
import re
from pathlib import Path

import torch

from ..structures import CheckpointError
from ..training import write_atomically

logger = logging.getLogger(__name__)

_NAME = re.compile(r"state_(\d{8})\.pt")
_VERSION = 2


def rng_state() -> dict:
    """The state of this process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict) -> None:
    """Undoes whatever was drawn since `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def write_state(folder: str | Path, step: int, content: dict, keep: int = 1) -> Path:
    """Writes `state_<step>.pt` whole or not at all, then removes all but the newest `keep` and what a process
    that was killed in the middle of writing left behind."""
    folder = Path(folder)
    path = write_atomically(folder / f"state_{step:08d}.pt", {"version": _VERSION, "step": step, **content})
    for old in [*_states(folder)[: -max(1, keep)], *folder.glob("state_*.partial")]:
        old.unlink()
    return path


def latest_state(folder: str | Path) -> Path | None:
    """The newest resume state of a folder."""
    states = _states(Path(folder))
    return states[-1] if states else None


def read_state(path: str | Path) -> dict:
    """The content of a resume state, on the CPU.

    Raises:
        CheckpointError: not such a file, or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a resume state: {error}") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise CheckpointError(f"{path} is not a resume state of version {_VERSION}. Start anew without --resume.")
    return content


def _states(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
