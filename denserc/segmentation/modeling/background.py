"""The answer "none of the classes", as part of a vocabulary."""

from typing import NamedTuple

import torch

from ...openvocab.vocabulary import ClassEmbeddings
from ...structures import ConfigurationError, Vocabulary, choose
from .options import Background


class BackgroundSelection(NamedTuple):
    """A vocabulary with its background, as BackgroundEmbeddings holds them; extends `ClassSelection`."""

    vocabulary: Vocabulary | None
    vectors: torch.Tensor
    novel: torch.Tensor
    choice: Background
    threshold: float


class BackgroundEmbeddings(ClassEmbeddings):
    """ClassEmbeddings whose background may be exchanged together with the vocabulary.

    Args:
        embed_dim: Width E of the embeddings.
        choice: See Background.
        threshold: Probability below which a pixel is background, for Background.THRESHOLD.
    """

    def __init__(self, *, embed_dim: int, choice: Background = Background.NONE, threshold: float = 0.0):
        super().__init__(embed_dim=embed_dim)
        self.use_background(choice, threshold)

    def use_background(self, choice: Background, threshold: float) -> None:
        """Use another background; a vocabulary must be set next, as `vectors` may lack the prompt."""
        self.choice, self.threshold = choice, threshold
        self.background = choice is Background.PROMPT

    def selection(self) -> BackgroundSelection:
        """See ClassEmbeddings.selection."""
        return BackgroundSelection(*super().selection(), self.choice, self.threshold)

    def restore(self, selection: BackgroundSelection) -> None:
        """See ClassEmbeddings.restore."""
        super().restore(selection)
        self.use_background(selection.choice, selection.threshold)


def read_background(given: Background | str, threshold: float) -> Background:
    """Read a background that a user gives.

    Args:
        given: A Background or its value.
        threshold: Probability below which a pixel is background, for Background.THRESHOLD.

    Raises:
        ConfigurationError: An unknown name, or a threshold that is not above 0 and at most 1 where one is needed.
    """
    choice = given if isinstance(given, Background) else choose(Background, given, "background")
    if choice is Background.THRESHOLD and not 0 < threshold <= 1:
        raise ConfigurationError(
            f"background='threshold' needs background_threshold, a probability above 0 and at most 1; got {threshold}."
        )
    return choice
