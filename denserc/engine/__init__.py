"""Shared parts of all trainings: step, device, arithmetic, average, rate, processes, progress bar, files."""

from .checkpoint import CheckpointWriter, TrainingCheckpointer
from .hooks import ProgressBar, SeedEachStep
from .runtime import Precision, any_process, arithmetic, free_bytes, fused_update, join_processes, resolve_device
from .sharding import Sharding
from .solver import RateScaling, scaled_rate
from .trainer import StepTrainer

__all__ = [
    "CheckpointWriter",
    "Precision",
    "ProgressBar",
    "RateScaling",
    "SeedEachStep",
    "Sharding",
    "StepTrainer",
    "TrainingCheckpointer",
    "any_process",
    "arithmetic",
    "free_bytes",
    "fused_update",
    "join_processes",
    "resolve_device",
    "scaled_rate",
]
