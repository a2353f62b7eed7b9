"""Composing scenes: one or two regions of stuff, up to eight things over them, nearer ones hiding others.

Every pixel belongs to exactly one segment, so masks are visible areas and a scene is a panoptic picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .backgrounds import cut_stuff
from .render import STYLES, Placed, paint, silhouette
from .world import STUFF, THINGS, Domain, Thing

MAX_THINGS = 8
SMALLEST, LARGEST = 10.0, 100.0  # diameters in pixels of a 128-pixel scene
MIN_VISIBLE = 0.35  # a thing of which less is left visible is taken out of the scene


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Args:
        image: (H, W, 3) uint8 RGB.
        segments: (H, W) uint8; value i is the segment named[i].
        stuff: Names of the stuff regions, the first values of `segments`.
        things: The things, farthest first; their values follow those of the stuff.
        domain: Domain whose look the picture has.
    """

    image: np.ndarray
    segments: np.ndarray
    stuff: tuple[str, ...]
    things: tuple[Thing, ...]
    domain: Domain

    @property
    def names(self) -> tuple[str, ...]:
        """The name, in words of the main domain, of each value in `segments`."""
        return self.stuff + tuple(thing.name for thing in self.things)

    def thing_mask(self, index: int) -> np.ndarray:
        """(H, W) bool: the visible area of things[index]."""
        return self.segments == len(self.stuff) + index


def _regions(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 of zeros and ones: two regions along a wavy horizon, or one (a quarter of the scenes)."""
    regions = np.zeros((height, width), np.uint8)
    if rng.random() < 0.25:
        return regions
    upright = rng.random() < 0.25
    along, across = (height, width) if upright else (width, height)
    t = np.arange(along) / along
    wave = rng.uniform(0.3, 0.7) + rng.uniform(-0.15, 0.15) * (t - 0.5)
    wave = wave + rng.uniform(0.01, 0.06) * np.sin(2 * np.pi * (rng.uniform(0.5, 2.5) * t + rng.random()))
    below = np.arange(across)[:, None] >= wave[None] * across
    return (below.T if upright else below).astype(np.uint8)


def _place(things: Sequence[Thing], height: int, width: int, smallest: float, rng: np.random.Generator) -> list[Placed]:
    """Positions and log-uniform sizes, the largest first because they are farthest back."""
    unit = min(height, width) / 128
    radii = np.sort(np.exp(rng.uniform(np.log(smallest), np.log(LARGEST), len(things))))[::-1] * unit / 2
    order = rng.permutation(len(things))
    placed = []
    for radius, i in zip(radii, order, strict=True):
        margin = 0.6 * radius  # part of a thing may leave the picture
        x = rng.uniform(min(margin, width / 2), max(width - margin, width / 2))
        y = rng.uniform(min(margin, height / 2), max(height - margin, height / 2))
        placed.append(Placed(things[i], x, y, radius, rng.uniform(-0.45, 0.45)))
    return placed


def compose_scene(
    rng: np.random.Generator,
    domain: Domain = Domain.MAIN,
    *,
    size: tuple[int, int] = (128, 128),
    things: Sequence[Thing] = THINGS,
    weights: np.ndarray | None = None,
    count: int | None = None,
    smallest: float = SMALLEST,
) -> Scene:
    """Draw a scene.

    Args:
        rng: Source of all chance; the same state gives the same scene.
        domain: Domain whose look the scene has.
        size: (h, w) in pixels.
        things: The classes to draw from.
        weights: (len(things),) probabilities, uniform if None.
        count: Number of things placed, 1..8 at random if None (0 gives an empty scene); hidden ones are left out.
        smallest: Diameter of the smallest things, in pixels of a 128-pixel scene.
    """
    height, width = size
    style = STYLES[domain]
    regions = _regions(height, width, rng)
    stuff = tuple(STUFF[i] for i in rng.permutation(len(STUFF))[: int(regions.max()) + 1])
    canvas = cut_stuff(stuff[0], domain, height, width, rng)
    if len(stuff) == 2:
        canvas = np.where(regions[..., None] == 1, cut_stuff(stuff[1], domain, height, width, rng), canvas)

    count = int(rng.integers(1, MAX_THINGS + 1)) if count is None else count
    chosen = [things[i] for i in rng.choice(len(things), count, p=weights)]
    placed = _place(chosen, height, width, smallest, rng)
    shapes = [silhouette(p, height, width, style) for p in placed]
    full = [0 if s is None else int((s.alpha >= 0.5).sum()) for s in shapes]

    kept = [i for i in range(count) if full[i] > 0]
    while True:
        segments = regions.copy()
        for value, i in enumerate(kept, start=len(stuff)):
            segments[shapes[i].window][shapes[i].alpha >= 0.5] = value
        visible = np.bincount(segments.ravel(), minlength=len(stuff) + len(kept))[len(stuff) :]
        seen = [i for i, area in zip(kept, visible, strict=True) if area >= MIN_VISIBLE * full[i]]
        if seen == kept:
            break
        kept = seen
    for i in kept:
        paint(canvas, placed[i], shapes[i], style, rng)
    canvas += style.noise * rng.standard_normal((height, width, 1), dtype=np.float32)
    image = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return Scene(image, segments, stuff, tuple(placed[i].thing for i in kept), domain)
