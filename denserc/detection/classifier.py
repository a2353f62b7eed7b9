"""Classification by cosine to text embeddings, for a vocabulary that may change at any time.

Shape letters: R regions, C classes, E the image-text space; the background is the last of C + 1 rows or columns.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..structures import BACKGROUND, ConfigurationError, TextEmbeddings, Vocabulary
from .options import ClassLossNormaliser


class ClassEmbeddings(nn.Module):
    """The vocabulary in use: its text embeddings and which classes are novel. Holds no weight and is not saved.

    Args:
        embed_dim: E.
    """

    def __init__(self, *, embed_dim: int):
        super().__init__()
        self.vocabulary: Vocabulary | None = None
        self.register_buffer("vectors", torch.zeros(0, embed_dim), persistent=False)  # (C + 1, E)
        self.register_buffer("novel", torch.zeros(0, dtype=torch.bool), persistent=False)  # (C,)

    def set(self, vocabulary: Vocabulary, embeddings: TextEmbeddings) -> None:
        """Use another vocabulary; `embeddings` hold its names and "background", in any order.

        Raises:
            DataError: a name has no embedding.
            ConfigurationError: the embeddings have another width than the encoder.
        """
        vectors = embeddings.select([*vocabulary.names, BACKGROUND])
        if vectors.shape[1] != self.vectors.shape[1]:
            raise ConfigurationError(
                f"Text embeddings of width {vectors.shape[1]} do not fit an encoder of width {self.vectors.shape[1]}."
            )
        self.vectors = F.normalize(vectors.detach().to(self.vectors), dim=1)
        self.novel = vocabulary.novel_mask().to(self.novel.device)
        self.vocabulary = vocabulary

    def require(self) -> torch.Tensor:
        """The vectors (C + 1, E); an error names the call that is missing."""
        if self.vocabulary is None:
            raise ConfigurationError("The detector has no vocabulary yet: call model.set_vocabulary(names) first.")
        return self.vectors


class CosineClassifier(nn.Module):
    """cosine x temperature.

    Args:
        temperature: its initial or fixed value.
        learned: whether it is trained.
        test_temperature: replaces it outside of training, whatever was learned; None: it does not.
    """

    def __init__(self, *, temperature: float, learned: bool, test_temperature: float | None = None):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learned)
        self.test_temperature = test_temperature

    def forward(self, features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Features (R, E), of any length, and unit vectors (C + 1, E) -> logits (R, C + 1).

        A feature of only zeros (every unit dead after the last ReLU) has the cosine 0 to all classes; the original
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
    normaliser: ClassLossNormaliser,
) -> torch.Tensor:
    """Cross-entropy over the base classes and the background: novel classes do not exist in training.

    Args:
        logits: (R, C + 1).
        labels: (R,) int64, C for the background. Samples labelled novel have weight 0.
        novel: (C,) bool.
        background_weight: weight of background samples; base samples have weight 1.
        normaliser: see ClassLossNormaliser.
    """
    weights = torch.cat([(~novel).to(logits.dtype), logits.new_tensor([background_weight])])  # (C + 1,)
    sample_weights = weights[labels]
    used = sample_weights > 0  # a novel label would meet its own -inf: 0 x inf is NaN
    masked = logits.masked_fill(F.pad(novel, (0, 1)), float("-inf"))
    loss = (F.cross_entropy(masked[used], labels[used], reduction="none") * sample_weights[used]).sum()
    count = sample_weights.sum() if normaliser is ClassLossNormaliser.WEIGHTS else float(len(labels))
    return loss / max(count, 1e-6) + logits.sum() * 0.0
