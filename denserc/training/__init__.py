"""What both kinds of training share: device, progress bar, what processes decide together, results kept on disk."""

from .device import resolve_device
from .kept import kept
from .processes import any_process, join_processes
from .progress import ProgressBar

__all__ = ["ProgressBar", "any_process", "join_processes", "kept", "resolve_device"]
