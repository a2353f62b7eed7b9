"""A map with a LayerNorm, split into parts with the statistics of the whole, is the sum of its parts."""

import pytest
import torch
from torch import nn

from denserc.analysis.linearised import Linearised
from denserc.structures import ConfigurationError


@pytest.mark.parametrize("function", [nn.Linear(16, 4), nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4))])
@torch.no_grad()
def test_linearised_maps_add_up_even_where_epsilon_matters(function):
    parts = 1e-3 * torch.randn(3, 5, 16)  # variance 1e-6, below LayerNorm's epsilon
    parts[1] *= 1e-4
    split = Linearised(function, parts)
    total = split.bias + (split.image(parts) * split.scale(parts.sum(0))).sum(0)
    torch.testing.assert_close(total, function(parts.sum(0)), atol=1e-5, rtol=1e-4)


def test_other_maps_are_refused():
    with pytest.raises(ConfigurationError, match="cannot be split"):
        Linearised(nn.Sequential(nn.LayerNorm(16), nn.GELU()), torch.zeros(16))
