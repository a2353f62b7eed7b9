"""Class names of a vocabulary against those of a file: by name, never by position.

Data sets spell one class in several ways: Objects365 v1 has "tissue " in some files and "tissue" in others, and
"cabinet/shelf" for the published list's "cabinet / shelf"; Pascal VOC writes "diningtable". A name is therefore
looked for as it is, then without surrounding blanks, then with neither blanks nor capitals.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from ...structures import DataError


def without_blanks(name: str) -> str:
    """A name with neither blanks nor capitals: "Cabinet / Shelf " -> "cabinet/shelf"."""
    return "".join(name.split()).lower()


def find_names(names: Iterable[str], held: Iterable[str], aliases: Mapping[str, str] | None = None) -> dict[str, str]:
    """Find the held name that each name means; names that are not held are left out.

    A spelling that two of the names held share without blanks and capitals is found only by its exact name.

    Args:
        names: Names to find.
        held: Names of a file.
        aliases: Other spellings, {name: possible spelling in the file}.
    """
    held = list(held)
    stripped = {name.strip(): name for name in held}
    loose: dict[str, list[str]] = {}
    for name in held:
        loose.setdefault(without_blanks(name), []).append(name)
    exact, found = set(held), {}
    for name in names:
        for spelling in (name, (aliases or {}).get(name, name)):
            candidates = loose.get(without_blanks(spelling), [])
            if spelling in exact:
                found[name] = spelling
            elif spelling.strip() in stripped:
                found[name] = stripped[spelling.strip()]
            elif len(candidates) == 1:
                found[name] = candidates[0]
            if name in found:
                break
    return found


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


def category_ids(
    categories: Sequence[dict],
    names: Iterable[str],
    optional: Iterable[str] = (),
    *,
    where: str | Path = "the annotation file",
) -> dict[str, int]:
    """The category id of each name, in the order of `names`; spellings as in `find_names`.

    Args:
        categories: Checked categories; see `denserc.data.datasets.entries`.
        names: Names to find.
        optional: Names that may be absent, and are then left out.
        where: Name of the file, for messages.

    Raises:
        DataError: Lists every absent name with the closest one that the file has; or two names mean one category.
    """
    by_name, names, optional = categories_by_name(categories), list(names), set(optional)
    found = find_names(names, by_name)
    absent = [name for name in names if name not in found and name not in optional]
    if absent:
        closest = {name: get_close_matches(name, by_name, n=1) for name in absent}
        hints = [f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else "") for name, close in closest.items()]
        raise DataError(
            f"The {len(by_name)} categories of {where} lack {', '.join(hints)}. It has: {sorted(by_name)[:100]}."
        )
    if len(set(found.values())) < len(found):
        shared = sorted(name for name in found if list(found.values()).count(found[name]) > 1)
        raise DataError(f"These class names mean the same category of {where}: {shared}.")
    return {name: by_name[found[name]]["id"] for name in names if name in found}
