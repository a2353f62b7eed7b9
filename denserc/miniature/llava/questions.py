"""Questions about a scene, with answers of one word that follow from what is visible.

POPE draws adversarial negatives from things that often occur together. Things of this world are drawn independently of
each other, so here they are the absent names that share most words with a present thing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..scenes import Scene
from ..world import CLASS_NAMES, COLOURS, SHAPES, STUFF, TEXTURES, THINGS, Thing

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
ATTRIBUTES = {"texture": TEXTURES, "color": COLOURS, "shape": SHAPES}
CONTENT_QUESTION = "what is in the scene ?"
APART = 12.0  # pixels between the centers of two things, below which none of them is left of the other
MOST_ASKED = 3  # present things per scene that POPE asks for

_FLATNESS = 4.0


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its only right answer.

    Args:
        kind: existence, texture, color, shape, count, position or stuff.
        text: Words with single spaces between, the question mark apart.
        answer: One word.
    """

    kind: str
    text: str
    answer: str


Pair = tuple[Question, Question]
"""A question whose answer is yes, then one whose answer is no."""


def class_weights() -> np.ndarray:
    """(65,) probabilities of the things: skewed, so that "popular" names exist; their order is random but fixed."""
    ranks = np.random.default_rng(0).permutation(len(THINGS))
    weights = 1 / (ranks + _FLATNESS)
    return weights / weights.sum()


def names_by_popularity() -> list[str]:
    """Names of all things, the most frequent first."""
    return [CLASS_NAMES[i] for i in np.argsort(-class_weights(), kind="stable")]


def present_names(scene: Scene) -> list[str]:
    """Names of the visible things, each once, from left to right."""
    centers = _centers(scene)
    order = sorted(range(len(scene.things)), key=lambda i: centers[i])
    return list(dict.fromkeys(scene.things[i].name for i in order))


def describe(scene: Scene) -> str:
    """All things from left to right, then the stuff: "striped red ring ; solid blue star ; grass"."""
    centers = _centers(scene)
    order = sorted(range(len(scene.things)), key=lambda i: centers[i])
    return " ; ".join([*(scene.things[i].name for i in order), *scene.stuff])


def negatives(scene: Scene, split: str, count: int, rng: np.random.Generator) -> list[str]:
    """Different names that are absent from a scene.

    Args:
        split: "random", "popular" (the most frequent ones) or "adversarial" (most words in common with a present one).
        count: Number of names.
        rng: Source of chance.

    Raises:
        ValueError: An unknown split.
    """
    present = set(present_names(scene))
    if split == "popular":
        return [name for name in names_by_popularity() if name not in present][:count]
    absent = [CLASS_NAMES[i] for i in rng.permutation(len(CLASS_NAMES)) if CLASS_NAMES[i] not in present]
    if split == "random":
        return absent[:count]
    if split == "adversarial":
        return sorted(absent, key=lambda name: -max((_common_words(name, other) for other in present), default=0))[
            :count
        ]
    raise ValueError(f"The split is {split!r}; legal are 'random', 'popular', 'adversarial'.")


def existence(name: str, answer: str) -> Question:
    """Is there a thing of this name?"""
    return Question("existence", f"is there a {name} ?", answer)


def asked_names(scene: Scene, rng: np.random.Generator) -> list[str]:
    """At most MOST_ASKED present names, drawn at random."""
    return _drawn(present_names(scene), MOST_ASKED, rng)


def open_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Attributes of a thing, a count, a position and stuff, each at most once, where the scene allows it."""
    found = [_attribute(scene, kind, rng) for kind in ATTRIBUTES]
    found += [_count(scene, rng), _position(scene, rng), _stuff(scene, rng)]
    return [one for one in found if one is not None]


def paired_questions(scene: Scene, rng: np.random.Generator) -> dict[str, Pair]:
    """MME's pairs by its names of subtasks, where the scene allows them."""
    pairs = {}
    present = present_names(scene)
    if present:
        absent = negatives(scene, "random", 1, rng)[0]
        pairs["existence"] = existence(_drawn(present, 1, rng)[0], "yes"), existence(absent, "no")
        color = _drawn(list(dict.fromkeys(thing.colour for thing in scene.things)), 1, rng)[0]
        right = sum(thing.colour == color for thing in scene.things)
        wrong = _other(range(len(NUMBERS)), right, rng, near=2)
        pairs["count"] = tuple(
            Question("count", f"are there {NUMBERS[number]} {color} things ?", answer)
            for number, answer in ((right, "yes"), (wrong, "no"))
        )
    asked = _attribute(scene, "color", rng)
    if asked is not None:
        rest = asked.text.removeprefix("what color is ").removesuffix(" ?")
        wrong = COLOURS[_other(range(len(COLOURS)), COLOURS.index(asked.answer), rng)]
        pairs["color"] = tuple(
            Question("color", f"is {rest} {color} ?", answer)
            for color, answer in ((asked.answer, "yes"), (wrong, "no"))
        )
    sides = _sides(scene, rng)
    if sides is not None:
        left, right = sides
        first, second = (left, right) if rng.random() < 0.5 else (right, left)
        words = ("left", "right") if first == left else ("right", "left")
        pairs["position"] = tuple(
            Question("position", f"is the {first} {word} of the {second} ?", answer)
            for word, answer in zip(words, ("yes", "no"), strict=True)
        )
    return pairs


def training_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """About 14 questions of all kinds: what the benchmarks ask, drawn anew."""
    found = [existence(name, "yes") for name in asked_names(scene, rng)]
    for split in ("random", "popular", "adversarial"):
        # Among the first ones, so that the most popular name of all is not always the negative.
        found += [existence(name, "no") for name in _drawn(negatives(scene, split, MOST_ASKED, rng), 1, rng)]
    found += open_questions(scene, rng)
    pairs = [pair for subtask, pair in paired_questions(scene, rng).items() if subtask != "existence"]
    for index in rng.permutation(len(pairs))[:1]:
        found += pairs[index]
    return list({one.text: one for one in found}.values())


def _attribute(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """An attribute of the only thing with its other two attributes."""
    shown = [_without(thing, kind) for thing in scene.things]
    only = [i for i, one in enumerate(shown) if Counter(shown)[one] == 1]
    if not only:
        return None
    index = only[rng.integers(len(only))]
    answer = scene.things[index].name.split()[list(ATTRIBUTES).index(kind)]
    return Question(kind, f"what {kind} is the {shown[index]} ?", answer)


def _without(thing: Thing, kind: str) -> str:
    words = thing.name.split()
    del words[list(ATTRIBUTES).index(kind)]
    return " ".join(words if kind != "shape" else [*words, "thing"])


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    """Questions for the number of things of a color: one of the picture's, and at times any."""
    visible = list(dict.fromkeys(thing.colour for thing in scene.things))
    color = _drawn(visible if visible and rng.random() < 0.8 else COLOURS, 1, rng)[0]
    return Question(
        "count", f"how many {color} things are there ?", NUMBERS[sum(thing.colour == color for thing in scene.things)]
    )


def _position(scene: Scene, rng: np.random.Generator) -> Question | None:
    sides = _sides(scene, rng)
    if sides is None:
        return None
    first, second = sides if rng.random() < 0.5 else sides[::-1]
    answer = "left" if first == sides[0] else "right"
    return Question("position", f"is the {first} left or right of the {second} ?", answer)


def _sides(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """(left one, right one) of two things whose names occur once."""
    centers = _centers(scene)
    counts = Counter(thing.name for thing in scene.things)
    only = [i for i, thing in enumerate(scene.things) if counts[thing.name] == 1]
    pairs = [(i, j) for i in only for j in only if centers[j] - centers[i] >= APART]
    if not pairs:
        return None
    left, right = pairs[rng.integers(len(pairs))]
    return scene.things[left].name, scene.things[right].name


def _stuff(scene: Scene, rng: np.random.Generator) -> Question:
    is_present = rng.random() < 0.5
    visible = [name for name in _visible_stuff(scene)]
    absent = [name for name in STUFF if name not in scene.stuff]
    name = _drawn(visible if is_present and visible else absent, 1, rng)[0]
    return Question("stuff", f"is there {name} ?", "yes" if name in visible else "no")


def _visible_stuff(scene: Scene) -> list[str]:
    return [name for value, name in enumerate(scene.stuff) if (scene.segments == value).any()]


def _centers(scene: Scene) -> list[float]:
    """Mean column of each thing's visible pixels."""
    return [float(np.nonzero(scene.thing_mask(i))[1].mean()) for i in range(len(scene.things))]


def _common_words(name: str, other: str) -> int:
    return len(set(name.split()) & set(other.split()))


def _other(values: Sequence[int], right: int, rng: np.random.Generator, near: int = 99) -> int:
    """A value that is not the right one, at most `near` away."""
    others = [value for value in values if value != right and abs(value - right) <= near]
    return others[rng.integers(len(others))]


def _drawn(values: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))[:count]]
