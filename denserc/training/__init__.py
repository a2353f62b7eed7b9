"""What both kinds of training share: where they compute, and how they show their progress."""

from .device import resolve_device
from .progress import ProgressBar

__all__ = ["ProgressBar", "resolve_device"]
