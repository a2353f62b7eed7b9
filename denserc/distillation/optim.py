"""Trained parameters of the distillation, their learning rates and weight decay."""

import math
import re
from enum import Enum

import torch
from torch import nn

from ..construction import DenseEncoder
from ..engine import fused_update
from ..structures import ConfigurationError


class Trainable(Enum):
    """Student's parameters that are trained. The text tower never is; the gates always are."""

    TOWER = "tower"  # the whole image tower
    BLOCKS = "blocks"  # only its transformer blocks: CLIPSelf and DeCLIP keep embeddings, norm and head


_BLOCK = re.compile(r"(^|\.)(blocks|resblocks)\.\d+\.")


def set_trainable(student: DenseEncoder, trainable: Trainable) -> None:
    """Switch gradients on and off in the student.

    Parameters that the construction does not use stay switched on: they get no gradient, and an
    optimizer leaves a parameter without gradient untouched, decay included.
    """
    student.requires_grad_(True)
    if trainable is Trainable.BLOCKS:
        blocks = 0
        for name, parameter in student.tower.named_parameters():
            in_block = _BLOCK.search(name) is not None
            parameter.requires_grad_(in_block)
            blocks += in_block
        if not blocks:
            raise ConfigurationError(
                f"DISTILL.TRAINABLE is 'blocks', but no parameter of {type(student.tower).__name__} lies in "
                f"'blocks.N' or 'resblocks.N'. Use 'tower'."
            )


def build_optimizer(
    student: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    gate_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """AdamW, fused where PyTorch has it; vectors and scalars (norms, biases, the temperature) do not decay.

    Every group has a "rate_factor", by which a schedule multiplies its learning rate: `gate_rate` for the gates (they
    start at zero and short trainings hardly move them), 1 for the rest.
    """
    if gate_rate <= 0:
        raise ConfigurationError(f"DISTILL.GATE_RATE is a multiple of the tower's rate, above 0; got {gate_rate}.")
    named = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    gates = [p for name, p in named if name.startswith("gates.")]
    tower = [p for name, p in named if not name.startswith("gates.")]
    groups = [
        {"params": [p for p in tower if p.ndim >= 2], "weight_decay": weight_decay, "rate_factor": 1.0},
        {"params": [p for p in tower if p.ndim < 2], "weight_decay": 0.0, "rate_factor": 1.0},
        {"params": gates, "weight_decay": weight_decay, "rate_factor": gate_rate},
    ]
    fused = fused_update(p for _, p in named)
    groups = [g for g in groups if g["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


def learning_rate(step: int, *, base: float, warmup: int, total: int) -> float:
    """Linear warm-up, then a cosine to 0, as open_clip schedules it.

    Args:
        step: Steps done so far, 0..total - 1.
        base: Peak learning rate.
        warmup: Steps of the warm-up; the step number `warmup` has the full rate.
        total: Steps of the whole training.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    return 0.5 * base * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
