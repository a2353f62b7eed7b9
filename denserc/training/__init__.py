"""What both kinds of training share: their device, what processes decide together, and the progress bar."""

from .device import resolve_device
from .processes import any_process
from .progress import ProgressBar

__all__ = ["ProgressBar", "any_process", "resolve_device"]
