"""What both trainings share: the step, device, arithmetic, average, rate, processes, progress bar, files."""

from .average import build_average
from .device import free_bytes, fused_update, resolve_device
from .files import weights_digest, write_atomically
from .kept import kept
from .precision import Precision, arithmetic
from .processes import any_process, join_processes
from .progress import ProgressBar
from .rates import RateScaling, scaled_rate
from .sharding import Sharding, build_sharded, load_whole_state, whole_state
from .trainer import StepTrainer

__all__ = [
    "Precision",
    "ProgressBar",
    "RateScaling",
    "Sharding",
    "StepTrainer",
    "any_process",
    "arithmetic",
    "build_average",
    "build_sharded",
    "free_bytes",
    "fused_update",
    "join_processes",
    "kept",
    "load_whole_state",
    "resolve_device",
    "scaled_rate",
    "weights_digest",
    "whole_state",
    "write_atomically",
]
