"""Vocabularies and their text embeddings: the class names that a model distinguishes, some of them novel."""

import unicodedata
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import DataError, FingerprintMismatchError
from .records import short


def class_names(names: Iterable[str], what: str = "Class names", *, ordered: bool = True) -> tuple[str, ...]:
    """Class names as a tuple.

    Args:
        names: List of names. A text is refused: its letters would become classes.
        what: Name of the list, for messages.
        ordered: False to take a set too, whose order is another in every process.

    Raises:
        DataError: Something else than a list of names; or a name that is blank or has an illegal character.
    """
    if isinstance(names, str | bytes):
        raise DataError(f"{what} are {short(names)}, one text; expected is a list of names, such as [{short(names)}].")
    if not isinstance(names, Iterable) or (ordered and isinstance(names, Set)):
        raise DataError(f"{what} are {short(names)}; expected is a list of names, such as ['cat', 'dog'].")
    names = tuple(names)
    for index, name in enumerate(names, start=1):
        _check_name(name, what if len(names) == 1 else f"{what}, number {index}")
    return names


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: expected is a non-empty text; got {short(name)}. Names are texts such as 'red cup'.")
    if name.isprintable():
        return
    for letter in name:
        # Format characters, such as joiners, belong to some scripts; the byte order mark to none.
        no_text = unicodedata.category(letter) in ("Cc", "Cs") and not letter.isspace()
        if no_text or letter == "\ufeff":
            raise DataError(
                f"{where}: {short(name)} has the character U+{ord(letter):04X}, which is no text. Remove it, and save "
                "the file of the names as UTF-8."
            )


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
        object.__setattr__(self, "names", class_names(self.names, "Names of text embeddings"))
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
        object.__setattr__(self, "names", class_names(names))
        object.__setattr__(self, "novel", frozenset(class_names(novel, "Novel classes", ordered=False)))
        if not self.names:
            raise DataError("A vocabulary needs at least one class name; got none.")
        seen, twice = set(), []
        for name in self.names:
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
