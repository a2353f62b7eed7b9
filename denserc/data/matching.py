"""Class names of a vocabulary against the categories of an annotation file: by name, never by position."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ..structures import DataError


def categories_by_name(categories: Sequence[dict]) -> dict[str, dict]:
    """{name without surrounding blanks: category}; DataError when a name or an id comes twice."""
    by_name: dict[str, dict] = {}
    for category in categories:
        name = category["name"].strip()
        if name in by_name:
            raise DataError(f"The annotation file has two categories named {name!r}.")
        by_name[name] = category
    if len({category["id"] for category in categories}) != len(categories):
        raise DataError("The annotation file has two categories with the same id.")
    return by_name


def category_ids(categories: Sequence[dict], names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, int]:
    """The category id of each name, in the order of `names`.

    Surrounding blanks do not count: Objects365 v1 has "tissue " in some files and "tissue" in others.

    Args:
        names: names to find.
        optional: those of them that may be absent, and are then left out.

    Raises:
        DataError: lists every absent name with the closest one that the file has.
    """
    by_name = categories_by_name(categories)
    optional = set(optional)
    ids, absent = {}, []
    for name in names:
        if name.strip() in by_name:
            ids[name] = by_name[name.strip()]["id"]
        elif name not in optional:
            absent.append(name)
    if absent:
        closest = {name: get_close_matches(name, by_name, n=1) for name in absent}
        hints = [f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else "") for name, close in closest.items()]
        raise DataError(
            f"The annotation file's {len(by_name)} categories lack {', '.join(hints)}. It has: {sorted(by_name)[:100]}."
        )
    return ids
