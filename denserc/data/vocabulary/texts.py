"""Class names as the sentences that a text encoder receives: which are one text, and which are cut off.

Names that differ as strings may be one text: "green_ball" and "green ball", "Cat" and "cat.", and whatever a tokenizer
makes equal, such as "caf\u00e9" written with one character or with two. Both classes then have one embedding.
"""

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from .prompts import build_prompts, clean_name

logger = logging.getLogger(__name__)

_SHOWN = 10


@runtime_checkable
class Reader(Protocol):
    """The part of a text tower that reads sentences; see `denserc.encoders.TextTower`.

    A tower without it is compared by `clean_name`.
    """

    def tokens(self, prompts: list[str]) -> list[tuple[int, ...]] | None:
        """Token ids of each sentence; None if they are not known yet."""

    def cut(self, prompts: list[str]) -> list[bool] | None:
        """True for each sentence whose end is cut off; None if that is not known yet."""


def text_of(phrases: Sequence[str], reader: object = None) -> dict[str, object]:
    """{phrase: its text}. Phrases with equal texts have one embedding.

    Args:
        phrases: Class names, or their synonyms.
        reader: Text tower, by whose tokens phrases are compared; None compares by `clean_name`.
    """
    cleaned = [clean_name(phrase) for phrase in phrases]
    tokens = reader.tokens([f"{noun}." for noun in cleaned]) if isinstance(reader, Reader) else None
    return dict(zip(phrases, cleaned if tokens is None else tokens, strict=True))


def same_texts(names: Sequence[str], reader: object = None) -> list[tuple[str, ...]]:
    """Groups of names that are one text; see `text_of` for the arguments."""
    groups: dict[object, list[str]] = {}
    for name, text in text_of(names, reader).items():
        groups.setdefault(text, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def warn_of_same_texts(groups: Sequence[Sequence[str]]) -> None:
    """Name groups of classes that are one text in one warning; none for no groups."""
    if groups:
        logger.warning(
            "%d groups of classes are one text to the encoder, which cannot tell them apart: the first of a group "
            "always wins. Merge or rename them: %s",
            len(groups),
            _joined(" = ".join(repr(name) for name in group) for group in groups),
        )


def warn_of_cut_texts(names: Sequence[str], templates: Sequence[str], reader: object) -> None:
    """Name classes whose longest sentence is cut off at the encoder's context length in one warning."""
    longest = max(templates, key=len)
    cut = reader.cut([build_prompts(name, [longest])[0] for name in names]) if isinstance(reader, Reader) else None
    found = [name for name, is_cut in zip(names, cut or (), strict=False) if is_cut]
    if found:
        logger.warning(
            "The sentences of %d classes are longer than the text encoder reads, and their ends are cut off. Shorten "
            "these names: %s",
            len(found),
            _joined(repr(name if len(name) <= 120 else f"{name[:80]} ... {name[-30:]}") for name in found),
        )


def _joined(items) -> str:
    items = list(items)
    return "; ".join(items[:_SHOWN]) + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
