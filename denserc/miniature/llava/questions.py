"""Scenes, and questions about them with answers of one word that follow from what is visible.

Things are all 256 combinations of a texture, a color and a shape, where the other data sets of the world have 65. Two
words of a name then do not give away the third one. POPE draws adversarial negatives from things that often occur
together. Things of this world are drawn independently of each other, so here they are the absent names that share most
words with a present thing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..scenes import Scene, compose_scene
from ..world import ALL_THINGS, COLOURS, SHAPES, STUFF, TEXTURES, Thing

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
ATTRIBUTES = {"texture": TEXTURES, "color": COLOURS, "shape": SHAPES}
CONTENT_QUESTION = "what is in the scene ?"
APART = 12.0  # pixels between the centers of two things, below which none of them is left of the other
MOST_ASKED = 3  # present things per scene that POPE asks for
MOST_THINGS = 2  # per scene
SMALLEST = 40.0  # diameter in pixels of a 128-pixel scene; the tower is shown 64 pixels, of which this is 20

_FLATNESS = 64.0
_NAMES = tuple(thing.name for thing in ALL_THINGS)


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
    """(256,) probabilities of the things, the highest 5 times the lowest; their order is random but fixed."""
    ranks = np.random.default_rng(0).permutation(len(ALL_THINGS))
    weights = 1 / (ranks + _FLATNESS)
    return weights / weights.sum()


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene of at most `MOST_THINGS` things."""
    count = int(rng.integers(1, MOST_THINGS + 1))
    return compose_scene(rng, things=ALL_THINGS, weights=class_weights(), count=count, smallest=SMALLEST)


def names_by_popularity() -> list[str]:
    """Names of all things, the most frequent first."""
    return [_NAMES[i] for i in np.argsort(-class_weights(), kind="stable")]


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
    absent = [_NAMES[i] for i in rng.permutation(len(_NAMES)) if _NAMES[i] not in present]
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
    """About 16 questions: what the benchmarks ask, and the existence of things with fewer attributes."""
    found = [existence(name, "yes") for name in asked_names(scene, rng)]
    found += [existence(name, "no") for name in _tempting(scene, len(found), rng)]
    found += [_partly(scene, words, rng) for words in (1, 1, 1, 1, 2, 2)]
    found += open_questions(scene, rng)
    pairs = [pair for subtask, pair in paired_questions(scene, rng).items() if subtask != "existence"]
    for index in rng.permutation(len(pairs))[:1]:
        found += pairs[index]
    return list({one.text: one for one in found}.values())


def _tempting(scene: Scene, count: int, rng: np.random.Generator) -> list[str]:
    """Absent names, each second one adversarial, drawn as often as present ones, so a name gives nothing away."""
    present = set(present_names(scene))
    drawn = rng.choice(len(_NAMES), len(_NAMES), replace=False, p=class_weights())
    absent = [_NAMES[i] for i in drawn if _NAMES[i] not in present]
    near = sorted(absent, key=lambda name: -max((_common_words(name, other) for other in present), default=0))
    return [(absent if i % 2 else near)[i] for i in range(count)]


def _partly(scene: Scene, words: int, rng: np.random.Generator) -> Question:
    """Existence of a thing with one or two given attributes."""
    left_out = rng.permutation(len(ATTRIBUTES))[: len(ATTRIBUTES) - words]
    present = {_with_gaps(thing, left_out) for thing in scene.things}
    drawn = rng.choice(len(ALL_THINGS), len(ALL_THINGS), replace=False, p=class_weights())
    absent = next((name for i in drawn if (name := _with_gaps(ALL_THINGS[i], left_out)) not in present), None)
    if present and (absent is None or rng.random() < 0.5):
        return existence(_drawn(sorted(present), 1, rng)[0], "yes")
    return existence(absent, "no")


def _with_gaps(thing: Thing, left_out: Sequence[int]) -> str:
    words = thing.name.split()
    kept = [word for i, word in enumerate(words) if i not in left_out]
    return " ".join(kept if kept[-1:] == words[-1:] else [*kept, "thing"])


def _attribute(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """An attribute of the only thing with its other two attributes."""
    index = list(ATTRIBUTES).index(kind)
    shown = [_with_gaps(thing, [index]) for thing in scene.things]
    only = [i for i, one in enumerate(shown) if shown.count(one) == 1]
    if not only:
        return None
    thing = only[rng.integers(len(only))]
    return Question(kind, f"what {kind} is the {shown[thing]} ?", scene.things[thing].name.split()[index])


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
