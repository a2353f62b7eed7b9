"""The optimizer of the trained parts."""

from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from torch import nn


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that limits the norm of all gradients together before each step.

    Detectron2's own clipping limits every parameter apart, which is another method. Under mixed precision the
    gradients are unscaled before `step` is called, so the limit means the same.

    Args:
        clip_norm: the limit; 0: none.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, clip_norm: float, **kwargs):
        super().__init__(params, **kwargs)
        self.clip_norm = clip_norm

    def step(self, closure=None):
        """Clip, then one step of AdamW."""
        if self.clip_norm > 0:
            nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], self.clip_norm)
        return super().step(closure)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> ClippedAdamW:
    """Over the parameters that require a gradient; the decay acts on all of them, norms and temperature too."""
    return ClippedAdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        clip_norm=cfg.SOLVER.CLIP_NORM,
        lr=cfg.SOLVER.BASE_LR,
        betas=tuple(cfg.SOLVER.BETAS),
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )
