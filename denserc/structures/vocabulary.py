"""Vocabularies and their text embeddings: the class names that a model distinguishes, some of them novel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from .errors import DataError, FingerprintMismatchError


@dataclass(frozen=True)
class TextEmbeddings:
    """One unit vector per name.

    Args:
        names: C unique names, usually a vocabulary's followed by "background".
        vectors: (C, E) float32, rows of norm 1.
        fingerprint: Fingerprint of the text encoder; "" when unknown (CLIPSelf's files carry none).
        templates: The prompt templates whose embeddings were averaged.
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


BACKGROUND = "background"


@dataclass(frozen=True)
class Vocabulary:
    """Ordered, unique class names; label i is names[i]. The background is never one of them.

    Classes are matched by name, never by position: F-ViT's label order followed the
    annotation file and not the class list, which is the trap that this type exists to close.
    """

    names: tuple[str, ...]
    novel: frozenset[str] = field(default_factory=frozenset)

    def __init__(self, names: Sequence[str], novel: Iterable[str] = ()):
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "novel", frozenset(novel))
        if not self.names:
            raise DataError("A vocabulary needs at least one class name; got none.")
        seen, twice = set(), []
        for name in self.names:
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"Class names must be non-empty strings; got {name!r}.")
            if name in seen:
                twice.append(name)
            seen.add(name)
        if twice:
            raise DataError(f"Class names must be unique; given more than once: {sorted(set(twice))}.")
        stray = self.novel - seen
        if stray:
            raise DataError(
                f"Novel classes that the vocabulary does not hold: {sorted(stray)}. Known: {list(self.names)}."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self):
        return iter(self.names)

    def index(self, name: str) -> int:
        """The label of a class; DataError when it is unknown."""
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(f"Class {name!r} is not in the vocabulary of {len(self)} names.") from None

    @property
    def base(self) -> frozenset[str]:
        """The names that are not novel."""
        return frozenset(self.names) - self.novel

    def novel_mask(self) -> torch.Tensor:
        """(C,) bool, True where the class is novel."""
        return torch.tensor([name in self.novel for name in self.names], dtype=torch.bool)
