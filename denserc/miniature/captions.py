"""Captions of pictures of the miniature world.

The only input is what is visible, so the same function captions whole scenes and crops. Names come in the
words of the scene's own domain most of the time and in the other domain's words at times; attributes are
left out now and then; and sentences take the forms of the usual prompt templates, as the web's captions do.
"""

from collections.abc import Sequence

import numpy as np

from .world import COLOURS, SHAPES, SYNONYMS, TEXTURES, Domain, Thing

_ADJECTIVES = (
    "good", "bad", "bright", "dark", "blurry", "black and white", "low resolution", "high resolution", "cropped",
    "close-up", "pixelated", "jpeg corrupted", "clean", "cool", "nice", "weird", "small", "large", "tiny", "big",
)  # fmt: skip
_FRAMES = (
    "{}",
    "{}.",
    "a photo of {}.",
    "a picture of {}.",
    "this is {}.",
    "there is {} in the scene.",
    "a photo of {} in the scene.",
    "a {adjective} photo of {}.",
    "itap of {}.",
    "an image of {}.",
    "i see {}.",
    "my {kind} of {}.",
)
_KINDS = (
    "photo", "picture", "image", "painting", "drawing", "sketch", "rendering", "art", "toy", "view", "sculpture",
    "cartoon", "graffiti", "video", "doodle", "print", "embroidery", "tattoo", "origami", "plushie",
)  # fmt: skip
_PLACES = ("on {}", "over {}", "in front of {}", "with {} in the background", "and {}", "against a {} background")
_STUFF_ALONE = ("{}", "{} in the scene", "{} texture", "a background of {}", "a {} background", "nothing but {}")
_JOINTS = (", ", " and ", " with ", " next to ", " beside ")
_OTHER_WORDS = (
    "the one an background object thing shape stuff scene single photos of some many something item region "
    "area part piece corner edge middle left right top bottom large medium small size"
)

_TO_MAIN = {synonym: word for word, synonym in SYNONYMS.items()}


def lexicon() -> list[str]:
    """Every text whose words captions are made of; the tokenizer's vocabulary is built from it."""
    texts = [*_ADJECTIVES, *_KINDS, *_FRAMES, *_PLACES, *_STUFF_ALONE, *_JOINTS, _OTHER_WORDS]
    return texts + list(SYNONYMS) + list(_TO_MAIN)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.random() * len(options))]


def _word(word: str, domain: Domain, rng: np.random.Generator) -> str:
    """One word of the main domain in the words of `domain`, one time in six in those of the other."""
    foreign = rng.random() < 1 / 6
    return SYNONYMS[word] if foreign != (domain is Domain.TRANSFER) else word


def thing_phrase(thing: Thing, domain: Domain, rng: np.random.Generator) -> str:
    """A thing with its article, e.g. "a striped purple cross"; sometimes without texture or color."""
    words = [_word(w, domain, rng) for w in (thing.texture, thing.colour, thing.shape)]
    chance = rng.random()
    if chance < 0.08 or (thing.texture == TEXTURES[0] and chance < 0.2):
        words = words[1:]  # few people call a plain thing plain
    elif chance > 0.96:
        words = words[::2]
    name = " ".join(words)
    article = _pick(("a", "a", "a", "the", "one", ""), rng)
    if article == "a" and name[0] in "aeiou":
        article = "an"
    return f"{article} {name}".strip()


def word_captions(rng: np.random.Generator) -> list[list[str]]:
    """One short caption for every texture, every color and every shape; all in one wording, drawn at random."""
    foreign, frame = rng.random() < 0.3, _pick(("{}", "{}.", "a photo of {}.", "this is {}.", "i see {}."), rng)
    attribute, shape = _pick(("something {}", "a {} thing", "{}"), rng), _pick(("a {}", "the {}", "{}"), rng)
    return [
        [frame.format(form.format(SYNONYMS[word] if foreign else word)) for word in words]
        for words, form in ((TEXTURES, attribute), (COLOURS, attribute), (SHAPES, shape))
    ]


def write_caption(things: Sequence[Thing], stuff: Sequence[str], domain: Domain, rng: np.random.Generator) -> str:
    """A sentence about what is visible.

    Args:
        things: At most a handful, in the order they are to be named; may be empty.
        stuff: Stuff names (words of the main domain) that may be mentioned; not both empty.
        domain: Domain whose words are preferred.
        rng: Source of chance.
    """
    if not things and not stuff:
        raise ValueError("A caption needs at least one thing or one stuff to speak of.")
    grounds = [_word(s, domain, rng) for s in stuff]
    if not things:
        subject = _pick(_STUFF_ALONE, rng).format(" and ".join(grounds))
    else:
        subject = thing_phrase(things[0], domain, rng)
        for thing in things[1:]:
            subject += _pick(_JOINTS, rng) + thing_phrase(thing, domain, rng)
        if grounds:
            subject += " " + _pick(_PLACES, rng).format(" and ".join(grounds))
    return _pick(_FRAMES, rng).format(subject, adjective=_pick(_ADJECTIVES, rng), kind=_pick(_KINDS, rng))
