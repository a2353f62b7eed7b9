"""What both trainings share: the step, device, arithmetic, average, rate, processes, progress bar, files."""

from .hooks import ProgressBar
from .runtime import Precision, any_process, arithmetic, free_bytes, fused_update, join_processes, resolve_device
from .solver import RateScaling, Sharding, build_average, build_sharded, load_whole_state, scaled_rate, whole_state
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
    "load_whole_state",
    "resolve_device",
    "scaled_rate",
    "whole_state",
]
