"""What learns in a detector: its optimizer, its learning rate and its moving average."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..structures import CheckpointError, choose
from ..training import RateScaling, build_average, fused_update, scaled_rate


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
