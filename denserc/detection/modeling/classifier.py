"""Classification by cosine to text embeddings, and fusion of its scores with the frozen encoder's.

The vocabulary may change at any time.
Shape letters: R regions, C classes, E the image-text space; the background is the last of C + 1 rows or columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...structures import ConfigurationError


@dataclass(frozen=True)
class FusionExponents:
    """Weight of the frozen encoder's score, between 0 (not used) and 1 (only it is used).

    Args:
        base: Exponent for base classes and for the background (alpha).
        novel: Exponent for novel classes (beta).
        unsplit: Exponent for all classes and the background of a vocabulary without novel classes, as in transfer.
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
    """detector^(1 - e) x encoder^e per class, not normalized again.

    Args:
        detector, encoder: (R, C + 1) probabilities.
        exponents: (C + 1,) e of each class.

    Returns:
        (R, C + 1).
    """
    return detector ** (1.0 - exponents) * encoder**exponents


class CosineClassifier(nn.Module):
    """cosine x temperature.

    Args:
        temperature: Initial or fixed temperature.
        learned: True to train the temperature.
        test_temperature: Temperature outside of training; None for the trained or fixed one.
    """

    def __init__(self, *, temperature: float, learned: bool = True, test_temperature: float | None = None):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learned)
        self.test_temperature = test_temperature

    def forward(self, features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Features (R, E), of any length, and unit vectors (C + 1, E) -> logits (R, C + 1).

        A feature of only zeros (every unit dead after the last ReLU) has the cosine 0 to all classes; MMDetection F-ViT
        divides by its length without an epsilon and gets NaN.
        """
        fixed = not self.training and self.test_temperature is not None
        temperature = self.test_temperature if fixed else self.temperature
        # Half precision would round a cosine times 50 to a few hundredths.
        with torch.autocast(features.device.type, enabled=False):
            return temperature * F.linear(F.normalize(features.float(), dim=1), vectors)


def masked_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    novel: torch.Tensor,
    background_weight: float,
) -> torch.Tensor:
    """Cross-entropy over the base classes and the background: novel classes do not exist in training.

    Args:
        logits: (R, C + 1).
        labels: (R,) int64, C for the background. Samples labeled novel have weight 0.
        novel: (C,) bool, True for novel classes.
        background_weight: Weight of background samples; base samples have weight 1.
    """
    weights = torch.cat([(~novel).to(logits.dtype), logits.new_tensor([background_weight])])  # (C + 1,)
    sample_weights = weights[labels]
    used = sample_weights > 0  # a novel label would meet its own -inf: 0 x inf is NaN
    masked = logits.masked_fill(F.pad(novel, (0, 1)), float("-inf"))
    loss = (F.cross_entropy(masked[used], labels[used], reduction="none") * sample_weights[used]).sum()
    return loss / max(len(labels), 1) + logits.sum() * 0.0
