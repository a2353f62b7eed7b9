"""Classes: those of the file, those of the vocabulary, and text embeddings of them."""

import re
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches

from ...structures import BACKGROUND, TextEmbeddings
from ..vocabulary.names import find_names, without_blanks
from ..vocabulary.prompts import is_background
from ..vocabulary.texts import same_texts
from .finding import CheckedSet, Finding, Severity, found

_NO_WORD = re.compile(r"(class|label|category|cls|object|id)?[\s_-]*\d+", re.IGNORECASE)


def names_without_words(names: Iterable[str]) -> list[str]:
    """Names such as "class 7", quoted."""
    return [repr(name) for name in names if _NO_WORD.fullmatch(name)]


def check_categories(checked: CheckedSet) -> list[Finding]:
    """Names of the file's categories."""
    names = [category["name"] for category in checked.categories]
    stripped = {name.strip() for name in names}
    alike = Counter(without_blanks(name) for name in stripped)
    return [
        *found("category-names-alike", Severity.WARNING, "category names that differ by blanks or capitals alone",
               "Merge these categories, or tell them apart by words.",
               [repr(name) for name in stripped if alike[without_blanks(name)] > 1]),
        *found("category-blanks", Severity.NOTE, "category names with blanks around them",
               "Nothing: they do not count here. Other tools may miss the class.",
               [repr(name) for name in names if name != name.strip()]),
    ]  # fmt: skip


def check_vocabulary(checked: CheckedSet) -> list[Finding]:
    """The set's classes against the file's categories."""
    vocabulary, held = checked.vocabulary, [category["name"] for category in checked.categories]
    meant = find_names(vocabulary.names, held)
    optional = vocabulary.novel if checked.training else frozenset()
    absent = [name for name in vocabulary.names if name not in meant and name not in optional]
    hints = {name: get_close_matches(name, held, n=1) for name in absent}
    id_of = {category["name"]: category["id"] for category in checked.categories}
    count = Counter(a["category_id"] for a in checked.annotations if not a.get("iscrowd", 0))
    instances = {name: count[id_of[meant[name]]] for name in vocabulary.names if name in meant}
    wanted = vocabulary.base if checked.training else set(vocabulary.names)
    left_out = sorted(set(held) - set(meant.values()))
    hidden = [name for name in instances if checked.training and name in vocabulary.novel and instances[name]]
    order = [meant[name] for name in vocabulary.names if name in meant]
    by_id = sorted(set(order), key=id_of.get)
    moved = [(i, a, b) for i, (a, b) in enumerate(zip(order, by_id, strict=False)) if a != b]
    return [
        *found("class-absent", Severity.ERROR, "classes of the set that its annotation file lacks",
               "Write the class as the file's category has it, or take it out.",
               [repr(name) + (f" (did you mean {hints[name][0]!r}?)" if hints[name] else "") for name in absent]),
        *found("class-background", Severity.ERROR, f"a class named {BACKGROUND!r}, which the detector adds by itself",
               "Take it out of the classes.", [repr(name) for name in vocabulary.names if is_background(name)]),
        *found("class-texts-same", Severity.WARNING, "classes that are one text to the text encoder",
               "Merge or rename them: the encoder cannot tell them apart.",
               [" = ".join(map(repr, group)) for group in same_texts(vocabulary.names)]),
        *found("class-no-word", Severity.WARNING, "class names that say nothing to a text encoder",
               "Name what is to be seen, in words.", names_without_words(vocabulary.names)),
        *found("class-empty", Severity.WARNING,
               "classes without an instance" + ("" if checked.training else ": their AP is not a number"),
               "Annotate some, or leave the class out; means are over the classes that have instances.",
               [repr(name) for name, n in instances.items() if n == 0 and name in wanted]),
        *found("category-left-out", Severity.NOTE, "categories of the file that the set does not use",
               "Nothing, if that is meant: their boxes are left out.",
               [f"{name!r}: {count[id_of[name]]:,} instances" for name in left_out]),
        *found("novel-hidden", Severity.NOTE, "novel classes with instances in a training file",
               "Nothing: training never sees their boxes.", [f"{n!r}: {instances[n]:,} instances" for n in hidden]),
        *found("class-order", Severity.NOTE, "the set's classes and the file's ids have different orders",
               "Nothing here, where classes go by name. Do not mix with tools that go by position.",
               [f"label {i}: {a!r}, by id {b!r}" for i, a, b in moved]),
    ]  # fmt: skip


def check_embeddings(checked: CheckedSet, embeddings: TextEmbeddings, fingerprint: str = "") -> list[Finding]:
    """Text embeddings for the set's classes.

    Args:
        embeddings: Text embeddings read from a file.
        fingerprint: Fingerprint of the text tower that they will be used with; "" if that is not known.
    """
    names = [*checked.vocabulary.names, *([BACKGROUND] if checked.asks_background else [])]
    meant = find_names(names, embeddings.names)
    other = embeddings.fingerprint and fingerprint and embeddings.fingerprint != fingerprint
    unknown = not embeddings.fingerprint
    return [
        *found("embedding-absent", Severity.ERROR, "classes without a text embedding",
               "Embed the names again: `denserc embed`.",
               [repr(name) for name in names if name not in meant]),
        *found("embedding-encoder", Severity.ERROR, "the embeddings are of another text encoder than the checkpoint's",
               "Embed the names again with the checkpoint's: `denserc embed`.",
               [f"{embeddings.fingerprint}, not {fingerprint}"] if other else []),
        *found("embedding-unknown-encoder", Severity.WARNING, "the file does not say which text encoder made it",
               "Make sure that it is the checkpoint's: those of another one give near-zero accuracy.",
               ["no fingerprint"] if unknown else []),
    ]  # fmt: skip
