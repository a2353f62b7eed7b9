"""The vocabulary of training-free segmentation: phrases, of which several may be one class.

Shape letters: C classes, Q prompted phrases, E width of the image-text space.
"""

import logging
from typing import NamedTuple

import torch

from ..openvocab.vocabulary import ClassEmbeddings
from ..structures import TextEmbeddings, Vocabulary
from .protocols import DenseProtocol, background_queries, class_queries

logger = logging.getLogger(__name__)


class QuerySelection(NamedTuple):
    """A vocabulary with its phrases, as QueryEmbeddings holds them; extends `ClassSelection`."""

    vocabulary: Vocabulary | None
    vectors: torch.Tensor
    novel: torch.Tensor
    label_of: torch.Tensor
    constants: DenseProtocol
    benchmark: str
    has_background: bool


class QueryEmbeddings(ClassEmbeddings):
    """Text embeddings of all phrases; backgrounds come first, so that they win ties.

    Attributes:
        label_of: (Q,) label of each phrase; C for backgrounds.
    """

    def __init__(self, *, embed_dim: int):
        super().__init__(embed_dim=embed_dim, background=False)
        self.constants: DenseProtocol | None = None
        self.benchmark = ""
        self.has_background = False
        self.register_buffer("label_of", torch.zeros(0, dtype=torch.long), persistent=False)

    def queries(self, vocabulary: Vocabulary) -> list[tuple[str, int]]:
        """(phrase, label) of all phrases, backgrounds first."""
        backgrounds = background_queries(self.benchmark, self.constants.names) if self.has_background else ()
        classes = class_queries(vocabulary.names, self.benchmark, self.constants.names)
        pairs = [(phrase, len(vocabulary)) for phrase in backgrounds]
        return pairs + [(phrase, label) for label, phrases in enumerate(classes) for phrase in phrases]

    def names_of(self, vocabulary: Vocabulary) -> list[str]:
        """The phrases to embed, each once."""
        return list(dict.fromkeys(phrase for phrase, _ in self.queries(vocabulary)))

    def set(self, vocabulary: Vocabulary, embeddings: TextEmbeddings) -> None:
        """See ClassEmbeddings.set."""
        super().set(vocabulary, embeddings)
        queries, row = self.queries(vocabulary), {name: i for i, name in enumerate(self.names_of(vocabulary))}
        self.vectors = self.vectors[[row[phrase] for phrase, _ in queries]]
        self.label_of = torch.tensor([label for _, label in queries], device=self.label_of.device)
        backgrounds = {phrase for phrase, label in queries if label == len(vocabulary)}
        tied = sorted({phrase for phrase, label in queries if label < len(vocabulary)} & backgrounds)
        if tied:
            logger.warning("%s are classes and also prompted as background, which wins the tie.", tied)

    def selection(self) -> QuerySelection:
        """See ClassEmbeddings.selection."""
        return QuerySelection(*super().selection(), self.label_of, self.constants, self.benchmark, self.has_background)

    def restore(self, selection: QuerySelection) -> None:
        """See ClassEmbeddings.restore."""
        super().restore(selection)
        self.label_of = selection.label_of.to(self.label_of.device)
        self.constants, self.benchmark = selection.constants, selection.benchmark
        self.has_background = selection.has_background
