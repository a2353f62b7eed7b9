"""Text embeddings with the fingerprint of the encoder that made them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .errors import DataError, FingerprintMismatchError


@dataclass(frozen=True)
class TextEmbeddings:
    """One unit vector per name.

    Args:
        names: C unique names, usually a vocabulary's followed by "background".
        vectors: (C, E) float32, rows of norm 1.
        fingerprint: of the text encoder; "" when unknown (the originals' files carry none).
        templates: the prompt templates whose embeddings were averaged.
    """

    names: tuple[str, ...]
    vectors: torch.Tensor
    fingerprint: str = ""
    templates: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "templates", tuple(self.templates))
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.names):
            raise DataError(
                f"Text embeddings must be (C, E) with C = {len(self.names)} names; got {tuple(self.vectors.shape)}."
            )
        if not torch.isfinite(self.vectors).all():
            raise DataError("Text embeddings hold values that are not finite.")

    def select(self, names: Sequence[str]) -> torch.Tensor:
        """The vectors (len(names), E) of these names in this order; DataError lists those not held."""
        row = {name: i for i, name in enumerate(self.names)}
        absent = [name for name in names if name not in row]
        if absent:
            raise DataError(f"No text embedding for {absent}; held are {len(self.names)}: {list(self.names)[:20]} ...")
        return self.vectors[[row[name] for name in names]]

    def require_fingerprint(self, expected: str) -> None:
        """Refuse embeddings of another text encoder (an unknown fingerprint passes)."""
        if self.fingerprint and expected and self.fingerprint != expected:
            raise FingerprintMismatchError(
                f"These text embeddings were made by the text encoder {self.fingerprint}, but the image encoder in use "
                f"belongs to {expected}. Embed the names again with the checkpoint's own text encoder."
            )
