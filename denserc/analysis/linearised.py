"""Maps with a LayerNorm split over the parts of their input, so that the parts add up to the whole exactly.

A LayerNorm followed by linear maps, f(u) = A (u - mean u) / sigma(u) + b, is not linear, but with sigma taken from the
whole input and held constant it is affine: f(u) = b + sum of A (p - mean p) / sigma(u) over any parts p that sum to u.
A plain linear map with a bias is the case sigma = 1. Only calls of f are needed, so that every tower's inner norm,
projection and head can be split without opening it.

Shape letters: D channels in, F channels out.
"""

from collections.abc import Callable

import torch

from ..structures import ConfigurationError

_LARGE = 100.0  # probes have this deviation, beside which a LayerNorm's epsilon is nothing
_TOLERANCE = 1e-3  # relative; a map that is not of this kind misses it by far


class Linearised:
    """f as `bias` + `scale(u)` * `image(p)` summed over the parts p of u.

    Args:
        function: (..., D) -> (..., F), applied per token.
        like: Any tensor (..., D); its width, type and device are those of the probes.

    Raises:
        ConfigurationError: The function is neither linear with a bias nor a LayerNorm followed by linear maps.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor):
        steps = torch.arange(like.shape[-1], device=like.device, dtype=like.dtype)
        a, b = _LARGE * torch.cos(1.7 * steps), _LARGE * torch.sin(0.9 * steps * steps)
        self._function = function
        self.bias = function(torch.zeros_like(a))  # (F,)
        for self._normalizes in (False, True):
            together, apart = self.image(a + b), self.image(a) + self.image(b)
            if (together - apart).norm() <= _TOLERANCE * together.norm():
                return
        raise ConfigurationError(
            "This map is neither linear with a bias nor a LayerNorm followed by linear maps, so it cannot be split "
            "over the parts of its input."
        )

    def image(self, part: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., F): A (p - mean p), linear in p, without bias and without 1 / sigma."""
        if not self._normalizes:
            return self._function(part) - self.bias
        deviation = part.std(-1, correction=0, keepdim=True)
        unit = part / deviation.clamp(min=torch.finfo(part.dtype).tiny) * _LARGE
        return (self._function(unit) - self.bias) * deviation

    def scale(self, whole: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., 1): 1 / sigma of the whole input, epsilon included; 1 for a map without norm."""
        if not self._normalizes:
            return torch.ones_like(whole[..., :1])
        image = self.image(whole)  # f(u) - b is this times the scale
        energy = image.square().sum(-1, keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny)
        return ((self._function(whole) - self.bias) * image).sum(-1, keepdim=True) / energy
