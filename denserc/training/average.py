"""A moving average of weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..structures import ConfigurationError


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
