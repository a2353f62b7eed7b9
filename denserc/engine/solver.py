"""Optimizer, learning rate, and the moving average of the trained weights."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..structures import CheckpointError, ConfigurationError, choose
from .runtime import fused_update
from .sharding import local_part, place, whole_weights

logger = logging.getLogger(__name__)


class ExportedWeights(Enum):
    """Weights that are evaluated and saved as the model, with a moving average."""

    AVERAGE = "average"
    TRAINED = "trained"


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """Over the parameters that require a gradient; the decay acts on all of them, norms and temperature too.

    A model with `parameter_groups(cfg)` decides otherwise: its groups may have a "weight_decay", and an "lr_factor"
    that the learning rate is multiplied by.

    The gradient is clipped by the trainer: the norm of all parameters together, where Detectron2's own clipping
    limits every parameter apart.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = scaled_rate(
        cfg.SOLVER.BASE_LR,
        batch=cfg.SOLVER.IMS_PER_BATCH,
        reference=cfg.SOLVER.REFERENCE_BATCH,
        rule=choose(RateScaling, cfg.SOLVER.LR_SCALING, "SOLVER.LR_SCALING"),
        key="SOLVER.REFERENCE_BATCH",
    )
    groups = [{"params": learning}]
    if hasattr(model, "parameter_groups"):
        groups = [{**group, "lr": rate * group.get("lr_factor", 1.0)} for group in model.parameter_groups(cfg)]
    return torch.optim.AdamW(
        groups,
        lr=rate,
        betas=tuple(cfg.SOLVER.BETAS),
        eps=cfg.SOLVER.EPS,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        fused=fused_update(learning),
    )


class TrainedAverage:
    """Moving average of the tensors that training changes in a model: parameters and running statistics.

    The first update copies the model; each later one is decay * average + (1 - decay) * model. Frozen weights, which
    are most of a detector, are not copied. Where processes share the weights, each averages its own part.

    Args:
        model: Model on its device, already sharded if it will be.
        decay: Decay of the average, between 0 and 1, exclusive.
        exported: Weights that `exported_weights` puts into the model.
    """

    def __init__(self, model: nn.Module, *, decay: float, exported: ExportedWeights):
        self.decay = decay
        self.exported = exported
        self._live = _ChangingTensors(model)
        update = get_ema_multi_avg_fn(decay)

        def update_parts(averages: list[torch.Tensor], values: list[torch.Tensor], count: torch.Tensor) -> None:
            update([local_part(one) for one in averages], [local_part(one) for one in values], count)

        average = AveragedModel(self._live, multi_avg_fn=update_parts, use_buffers=True)
        self._average: AveragedModel = average.requires_grad_(False)

    @property
    def updates(self) -> int:
        """Number of updates so far."""
        return int(self._average.n_averaged)

    @property
    def names(self) -> set[str]:
        """Names of the averaged tensors in a state's "trained"."""
        return set(self._live.state_dict())

    def update(self) -> None:
        """Update the average after a step."""
        self._average.update_parameters(self._live)

    @contextmanager
    def exported_weights(self) -> Iterator[None]:
        """Inside, the model has the exported weights; afterwards, bitwise, those that it had before."""
        if self.exported is ExportedWeights.TRAINED or not self.updates:
            yield
            return
        before = {name: value.clone() for name, value in self._live.state_dict().items()}
        self._live.load_state_dict(self._average.module.state_dict())
        try:
            yield
        finally:
            self._live.load_state_dict(before)

    def state_dict(self) -> dict:
        """The average, and the weights that training continues from; whole, and all processes call it."""
        trained = {name: value.clone() for name, value in whole_weights(self._live).items()}
        return {"average": whole_weights(self._average), "trained": trained}

    def load_state_dict(self, state: dict) -> None:
        """Load both; the model then has the weights that training continues from.

        Raises:
            CheckpointError: The state belongs to another model.
        """
        try:
            self._average.load_state_dict(place(self._average, state["average"]))
            self._live.load_state_dict(place(self._live, state["trained"]))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"The checkpoint's moving average belongs to another model: {error}") from error


class _ChangingTensors(nn.Module):
    """The tensors of a model (the same objects) that training changes: trained parameters and running statistics."""

    def __init__(self, model: nn.Module):
        super().__init__()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)
        for prefix, module in model.named_modules():
            for name, buffer in module.named_buffers(recurse=False):
                if name in ("running_mean", "running_var") and any(p.requires_grad for p in module.parameters()):
                    self.register_buffer(f"{prefix}.{name}".replace(".", "/"), buffer)


def build_trained_average(cfg: CfgNode, model: nn.Module) -> TrainedAverage | None:
    """The average of SOLVER.EMA; None for a decay of 0.

    Raises:
        ConfigurationError: DECAY is not in 0..1, or EXPORT is unknown.
    """
    settings = cfg.SOLVER.EMA
    exported = choose(ExportedWeights, settings.EXPORT, "SOLVER.EMA.EXPORT")
    if not 0 <= settings.DECAY < 1:
        raise ConfigurationError(f"SOLVER.EMA.DECAY must be in 0..1, without 1 (0 = no average); got {settings.DECAY}.")
    return None if settings.DECAY == 0 else TrainedAverage(model, decay=settings.DECAY, exported=exported)


class RateScaling(Enum):
    """Scaling of the learning rate with the total batch; steps and warm-up stay as given."""

    NONE = "none"  # the rate is the configuration's, whatever the batch
    LINEAR = "linear"  # times batch / reference
    SQRT = "sqrt"  # times sqrt(batch / reference), the rule for Adam-like optimizers


def scaled_rate(
    base: float, *, batch: int, reference: int, rule: RateScaling, key: str = "the reference batch"
) -> float:
    """The peak learning rate of a total batch; the log states the result.

    Args:
        base: The rate at the reference batch.
        batch: Images a step, over all processes and accumulated batches.
        reference: Images a step that `base` was chosen for.
        rule: See `RateScaling`.
        key: Configuration key of the reference batch, for the message.
    """
    if reference < 1:
        raise ConfigurationError(f"{key} is a number of images, at least 1; got {reference}.")
    ratio = batch / reference
    rate = base * {RateScaling.NONE: 1.0, RateScaling.LINEAR: ratio, RateScaling.SQRT: math.sqrt(ratio)}[rule]
    if rule is not RateScaling.NONE:
        logger.info(
            f"Peak learning rate {rate:.4g}: {base:g} at a batch of {reference}, {rule.value} rule, now {batch}."
        )
    return rate


def require_steps(cfg: CfgNode) -> None:
    """Check that there is something to train.

    Raises:
        ConfigurationError: SOLVER.MAX_ITER is below 1.
    """
    if cfg.SOLVER.MAX_ITER < 1:
        raise ConfigurationError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}: there is no step to train. Give 1 or more, or --eval-only."
        )


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Detectron2's schedule of the learning rate, after a check of the keys that belong together.

    Raises:
        ConfigurationError: No steps, more SOLVER.STEPS than steps, or a cosine that ends above SOLVER.BASE_LR.
    """
    require_steps(cfg)
    solver = cfg.SOLVER
    falls = [step for step in solver.STEPS if step <= solver.MAX_ITER]
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and len(falls) >= solver.MAX_ITER:
        raise ConfigurationError(
            f"SOLVER.STEPS is {solver.STEPS} in a training of SOLVER.MAX_ITER {solver.MAX_ITER}; expected are fewer "
            'steps than that. Set SOLVER.STEPS "()" for a constant rate.'
        )
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= solver.BASE_LR_END <= solver.BASE_LR > 0:
        raise ConfigurationError(
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END} and SOLVER.BASE_LR is {solver.BASE_LR}; expected is a rate "
            "above 0 that ends at most there."
        )
    return build_lr_scheduler(cfg, optimizer)
