"""The optimiser's state, kept by every process or shared between them; in a file it is whole either way."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..structures import CheckpointError, ConfigurationError, choose
from .runtime import fused_update

logger = logging.getLogger(__name__)


class ExportedWeights(Enum):
    """What is evaluated and is the model of a checkpoint, where a moving average is kept."""

    AVERAGE = "average"
    TRAINED = "trained"


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """Over the parameters that require a gradient; the decay acts on all of them, norms and temperature too.

    The gradient is clipped by the trainer: the norm of all parameters together, where Detectron2's own clipping
    limits every parameter apart.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        learning,
        lr=scaled_rate(
            cfg.SOLVER.BASE_LR,
            batch=cfg.SOLVER.IMS_PER_BATCH,
            reference=cfg.SOLVER.REFERENCE_BATCH,
            rule=choose(RateScaling, cfg.SOLVER.LR_SCALING, "SOLVER.LR_SCALING"),
            key="SOLVER.REFERENCE_BATCH",
        ),
        betas=tuple(cfg.SOLVER.BETAS),
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        fused=fused_update(learning),
    )


class TrainedAverage:
    """A moving average of what training changes in a model, beside it: parameters and running statistics.

    The frozen towers, which are most of the model, are not copied.

    Args:
        model: on its device.
        decay: in 0..1, without 0 and 1.
        exported: which weights `exported_weights` puts into the model.
    """

    def __init__(self, model: nn.Module, *, decay: float, exported: ExportedWeights):
        self.decay = decay
        self.exported = exported
        self._live = _ChangingTensors(model)
        self._average: AveragedModel = build_average(self._live, decay, key="SOLVER.EMA.DECAY", buffers=True)

    def update(self) -> None:
        """After a step."""
        self._average.update_parameters(self._live)

    @contextmanager
    def exported_weights(self) -> Iterator[None]:
        """Inside, the model has the exported weights; afterwards those that it had before, to the bit."""
        if self.exported is ExportedWeights.TRAINED or not self._average.n_averaged:
            yield
            return
        before = {name: value.clone() for name, value in self._live.state_dict().items()}
        self._live.load_state_dict(self._average.module.state_dict())
        try:
            yield
        finally:
            self._live.load_state_dict(before)

    def state_dict(self) -> dict:
        """The average, and what training goes on from."""
        trained = {name: value.clone() for name, value in self._live.state_dict().items()}
        return {"average": self._average.state_dict(), "trained": trained}

    def load_state_dict(self, state: dict) -> None:
        """Take both over; the model has then the weights that training goes on from."""
        try:
            self._average.load_state_dict(state["average"])
            self._live.load_state_dict(state["trained"])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"The checkpoint's moving average belongs to another detector: {error}") from error


class _ChangingTensors(nn.Module):
    """The tensors of a model, the same objects, that training changes: what learns, and running statistics."""

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
    """As SOLVER.EMA says; None for a decay of 0."""
    exported = choose(ExportedWeights, cfg.SOLVER.EMA.EXPORT, "SOLVER.EMA.EXPORT")
    if cfg.SOLVER.EMA.DECAY == 0:
        return None
    return TrainedAverage(model, decay=cfg.SOLVER.EMA.DECAY, exported=exported)


def build_average(
    module: nn.Module, decay: float, *, key: str = "the decay of an average", buffers: bool = False
) -> AveragedModel | None:
    """An exponential moving average of a module's weights, or None for a decay of 0.

    The first update copies the module; each later one is decay * average + (1 - decay) * module.

    Args:
        module: what is averaged; the average is a copy of it.
        decay: in 0..1, without 1.
        key: of the decay in the configuration, for the message.
        buffers: average them like the weights, not copy them; they must then be floating point.
    """
    if not 0 <= decay < 1:
        raise ConfigurationError(f"{key} must be in 0..1, without 1 (0 = no average); got {decay}.")
    if decay == 0:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=buffers).requires_grad_(False)


class RateScaling(Enum):
    """How the learning rate follows the total batch; steps and warm-up stay as they are given."""

    NONE = "none"  # the rate is the configuration's, whatever the batch
    LINEAR = "linear"  # times batch / reference
    SQRT = "sqrt"  # times sqrt(batch / reference), the rule for Adam-like optimisers


def scaled_rate(
    base: float, *, batch: int, reference: int, rule: RateScaling, key: str = "the reference batch"
) -> float:
    """The peak learning rate of a total batch; the log says what came out.

    Args:
        base: the rate at the reference batch.
        batch: images a step, over all processes and accumulated batches.
        reference: images a step that `base` was chosen for.
        rule: see `RateScaling`.
        key: of the reference batch in the configuration, for the message.
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


class Sharding(Enum):
    """What the processes share between them."""

    NONE = "none"  # nothing: every process has the whole optimiser
    ZERO1 = "zero1"  # the optimiser's state (ZeRO, stage 1): each steps its part of the weights and hands them round


def build_sharded(make: Callable[..., Optimizer], groups: list[dict], sharding: Sharding, **defaults) -> Optimizer:
    """The optimiser `make(groups, **defaults)`, its state shared as `sharding` says; whole in a single process.

    Whole gradients stay with every process, so that clipping and a gradient scaler see what they see without sharding.

    Args:
        make: the optimiser's class.
        groups: parameter groups, all of one dtype and device.
    """
    if sharding is Sharding.NONE or comm.get_world_size() == 1:
        return make(groups, **defaults)
    return ZeroRedundancyOptimizer(groups, optimizer_class=make, **defaults)


def whole_state(optimizer: Optimizer) -> dict:
    """What the unshared optimiser's `state_dict` is, on the main process; nothing useful on the others. All call it."""
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        return optimizer.state_dict()
    # Not its own consolidate_state_dict, which sends every part through every process's GPU and keeps the whole.
    index = {parameter: i for i, parameter in enumerate(_parameters(optimizer))}
    mine = {index[p]: {name: value.cpu() for name, value in s.items()} for p, s in optimizer.optim.state.items()}
    parts = comm.gather(mine)
    states = {i: state for part in parts for i, state in part.items()}
    return {**Optimizer.state_dict(optimizer), "state": dict(sorted(states.items()))}


def load_whole_state(optimizer: Optimizer, state: dict) -> None:
    """Takes over a `whole_state`, whatever number of processes wrote it, shared or not.

    Raises:
        ValueError: the state has other groups.
    """
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        optimizer.load_state_dict(state)
        return
    # Not its own load_state_dict, which moves the number of steps to the CPU, where a fused update on a GPU fails.
    groups, saved = optimizer.param_groups, state["param_groups"]
    if [len(g["params"]) for g in groups] != [len(g["params"]) for g in saved]:
        raise ValueError("the optimiser's groups of parameters have other lengths")
    index = {parameter: i for i, parameter in enumerate(_parameters(optimizer))}
    own = optimizer.optim
    for group, values in zip(groups, saved, strict=True):
        group.update({key: value for key, value in values.items() if key != "params"})
    places = [index[parameter] for parameter in _parameters(own)]
    packed = [group["params"] for group in own.state_dict()["param_groups"]]
    own.load_state_dict(
        {
            "state": {i: state["state"][place] for i, place in enumerate(places) if place in state["state"]},
            "param_groups": [{**values, "params": mine} for values, mine in zip(saved, packed, strict=True)],
        }
    )


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    """In the order in which a state dict counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
