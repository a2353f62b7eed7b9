"""A vocabulary: the class names a model tells apart, some of them novel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from .errors import DataError

BACKGROUND = "background"


@dataclass(frozen=True)
class Vocabulary:
    """Ordered, unique class names; label i is names[i]. The background is never one of them.

    Classes are matched by name, never by position: the originals' label order followed the
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
