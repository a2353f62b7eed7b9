"""Scores of the trained detector and of the frozen encoder, brought together.

Shape letters: R regions, C classes; the background is the last of C + 1 columns.
"""

from dataclasses import dataclass

import torch

from ..structures import ConfigurationError


@dataclass(frozen=True)
class FusionExponents:
    """How much the frozen encoder counts, between 0 (not at all) and 1 (alone).

    Args:
        base: for base classes and for the background (alpha).
        novel: for novel classes (beta).
        unsplit: for all classes and the background of a vocabulary that names no novel class, as in transfer.
    """

    base: float
    novel: float
    unsplit: float

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0.0 <= value <= 1.0:
                raise ConfigurationError(f"Fusion exponents lie between 0 and 1; got {name} = {value}.")

    def for_classes(self, novel: torch.Tensor) -> torch.Tensor:
        """(C,) bool, True where novel -> (C + 1,) float32 exponents, background last."""
        if not bool(novel.any()):
            return torch.full((len(novel) + 1,), self.unsplit, device=novel.device)
        exponents = torch.full((len(novel) + 1,), self.base, device=novel.device)
        exponents[:-1][novel] = self.novel
        return exponents


def fuse_scores(detector: torch.Tensor, encoder: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """detector^(1 - e) x encoder^e per class, not normalised again.

    Args:
        detector, encoder: (R, C + 1) probabilities.
        exponents: (C + 1,) e of each class.

    Returns:
        (R, C + 1).
    """
    return detector ** (1.0 - exponents) * encoder**exponents
