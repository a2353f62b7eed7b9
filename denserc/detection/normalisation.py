"""Normalisation layers by name."""

from collections.abc import Callable

from detectron2.layers import get_norm
from detectron2.utils import comm
from torch import nn

from ..structures import ConfigurationError

NORMS = ("", "BN", "SyncBN", "GN", "LN", "FrozenBN")


def norm_builder(name: str, key: str) -> Callable[[int], nn.Module] | None:
    """A function from a number of channels to a fresh layer; None for "", no normalisation.

    "SyncBN" shares its statistics between processes; with a single one, and so on a CPU, it is plain BN. The
    parameters carry the same names in both.

    Args:
        key: the configuration key, for the message.
    """
    if name not in NORMS:
        raise ConfigurationError(f"{key} is {name!r}; legal are {', '.join(map(repr, NORMS))}.")
    if not name:
        return None
    if name == "SyncBN" and comm.get_world_size() == 1:
        name = "BN"
    return lambda channels: get_norm(name, channels)


class ConvNormReLU(nn.Sequential):
    """Convolution (same size), normalisation, ReLU; the convolution has a bias only without normalisation.

    Args:
        norm: a layer from `norm_builder`, or None. It may be shared with other convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3, norm: nn.Module | None = None):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm is None)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if norm is None:
            nn.init.zeros_(self.conv.bias)
        else:
            self.norm = norm
        self.activation = nn.ReLU(inplace=True)
