"""Classes of the miniature world: words, the 65 thing classes, the stuff, and its two domains.

A thing is a texture, a color and a shape ("striped purple cross"); the 65 classes are 48 base and 17
novel ones out of the 8 x 8 x 4 = 256 combinations, drawn at random with balanced word counts. Every word
of a novel name is also part of some base name, so a novel class is a new combination of known words, as
"skateboard" and "snowboard" are not strangers to "surfboard". Both lists are written out, in an order of
their own: the annotation files of the world list their categories in other orders, as real ones do.
Training labels of semantic segmentation omit the novel things and two kinds of stuff.
"""

import enum
from dataclasses import dataclass

TEXTURES = ("solid", "striped", "dotted", "checkered")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
STUFF = ("grass", "sand", "water", "brick", "wood", "snow", "road", "sky")

SYNONYMS = {
    "solid": "plain",
    "striped": "lined",
    "dotted": "spotted",
    "checkered": "tiled",
    "red": "crimson",
    "orange": "tangerine",
    "yellow": "golden",
    "green": "emerald",
    "blue": "azure",
    "purple": "violet",
    "white": "ivory",
    "black": "ebony",
    "circle": "disc",
    "square": "box",
    "triangle": "wedge",
    "star": "pentagram",
    "cross": "plus",
    "ring": "hoop",
    "heart": "valentine",
    "crescent": "moon",
    "grass": "lawn",
    "sand": "beach",
    "water": "sea",
    "brick": "masonry",
    "wood": "timber",
    "snow": "frost",
    "road": "asphalt",
    "sky": "clouds",
}


class Domain(enum.Enum):
    """The two looks of the world: MAIN, and TRANSFER with other colors, outlines, noise and names."""

    MAIN = "main"
    TRANSFER = "transfer"


@dataclass(frozen=True)
class Thing:
    """A thing class: its three attributes in the words of the main domain."""

    texture: str
    colour: str
    shape: str

    @property
    def name(self) -> str:
        """Its name in the main domain, e.g. "striped purple cross"."""
        return f"{self.texture} {self.colour} {self.shape}"


def rename(name: str, domain: Domain) -> str:
    """A thing's or stuff's name as `domain` calls it: every word by its synonym in TRANSFER, else unchanged."""
    if domain is Domain.MAIN:
        return name
    return " ".join(SYNONYMS.get(word, word) for word in name.split())


BASE_NAMES = (
    "striped purple cross",
    "checkered yellow heart",
    "dotted blue heart",
    "striped black circle",
    "dotted orange crescent",
    "solid purple star",
    "checkered green circle",
    "dotted purple star",
    "checkered purple triangle",
    "solid white heart",
    "checkered green star",
    "dotted purple square",
    "solid black square",
    "striped blue star",
    "dotted orange triangle",
    "dotted white cross",
    "dotted white heart",
    "solid red crescent",
    "dotted green circle",
    "dotted white circle",
    "checkered blue ring",
    "solid purple ring",
    "striped yellow ring",
    "solid black circle",
    "dotted green heart",
    "solid yellow heart",
    "dotted black crescent",
    "checkered yellow crescent",
    "dotted red cross",
    "checkered orange crescent",
    "dotted purple cross",
    "dotted red crescent",
    "checkered orange ring",
    "solid white square",
    "checkered red heart",
    "striped white square",
    "checkered yellow ring",
    "striped black star",
    "solid blue triangle",
    "striped black square",
    "striped yellow crescent",
    "striped white circle",
    "checkered white triangle",
    "checkered black circle",
    "striped green cross",
    "checkered purple star",
    "striped red ring",
    "solid red triangle",
)

NOVEL_NAMES = (
    "dotted red circle",
    "striped green square",
    "dotted white star",
    "solid blue circle",
    "striped orange heart",
    "checkered blue cross",
    "checkered white circle",
    "solid blue ring",
    "solid yellow square",
    "solid black ring",
    "checkered black cross",
    "checkered blue star",
    "dotted black triangle",
    "solid orange heart",
    "dotted green ring",
    "striped purple crescent",
    "striped orange crescent",
)

CLASS_NAMES = BASE_NAMES + NOVEL_NAMES
UNSEEN_STUFF = ("road", "sky")
SEEN_NAMES = BASE_NAMES + tuple(name for name in STUFF if name not in UNSEEN_STUFF)
THINGS = tuple(Thing(*name.split()) for name in CLASS_NAMES)
ALL_THINGS = tuple(Thing(t, c, s) for t in TEXTURES for c in COLOURS for s in SHAPES)
