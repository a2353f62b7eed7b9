"""Shared parts of all trainings: step, device, arithmetic, average, rate, processes, progress bar, files."""

from .checkpoint import CheckpointWriter, TrainingCheckpointer
from .hooks import Evaluation, MetricsWriter, ProgressBar, SeedEachStep
from .runtime import (
    Precision,
    any_process,
    arithmetic,
    free_bytes,
    fused_update,
    join_processes,
    resolve_device,
    training_folder,
)
from .sharding import Sharding
from .solver import RateScaling, scaled_rate
from .stopping import StopOnSignal, shield_worker
from .trainer import StepTrainer

__all__ = [
    "CheckpointWriter",
    "Evaluation",
    "MetricsWriter",
    "Precision",
    "ProgressBar",
    "RateScaling",
    "SeedEachStep",
    "Sharding",
    "StepTrainer",
    "StopOnSignal",
    "TrainingCheckpointer",
    "any_process",
    "arithmetic",
    "free_bytes",
    "fused_update",
    "join_processes",
    "resolve_device",
    "scaled_rate",
    "shield_worker",
    "training_folder",
]
