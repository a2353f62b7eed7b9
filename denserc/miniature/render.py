"""Drawing one thing: an anti-aliased silhouette, filled with color and texture, in the style of a domain."""

from dataclasses import dataclass

import cv2
import numpy as np

from .world import Domain, Thing

_RGB = {
    "red": (214, 34, 38),
    "orange": (244, 132, 20),
    "yellow": (246, 222, 40),
    "green": (30, 170, 66),
    "blue": (36, 78, 220),
    "purple": (146, 50, 190),
    "white": (248, 248, 248),
    "black": (26, 26, 28),
}
_SUBPIXEL = 4  # fractional bits of cv2's fixed-point coordinates


@dataclass(frozen=True)
class Style:
    """Drawing style of a domain.

    Args:
        outline: Width of the dark outline in pixels.
        ink: Darkness of the outline, 0..1.
        tint: The second tone of a texture: below 0 that much darker, above 0 that much lighter (0..1).
        periods: Stripes (or rows of dots, or double rows of checks) across a thing.
        colour_mix: Share of gray-white mixed into the colors.
        noise: Deviation of the pixel noise, gray levels.
    """

    outline: float
    ink: float
    tint: float
    periods: float
    colour_mix: float
    noise: float


STYLES = {
    Domain.MAIN: Style(outline=0.8, ink=0.45, tint=-0.62, periods=3.4, colour_mix=0.0, noise=3.0),
    Domain.TRANSFER: Style(outline=1.8, ink=0.9, tint=0.62, periods=2.7, colour_mix=0.14, noise=9.0),
}


def _outlines() -> dict[str, list[np.ndarray]]:
    """Closed outlines (P, 2) as (x, y) in the unit disc, y down; a second one is a hole."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    spikes = -np.pi / 2 + np.arange(10) * np.pi / 5
    star = np.stack([np.cos(spikes), np.sin(spikes)], 1) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    thirds = -np.pi / 2 + np.arange(3) * 2 * np.pi / 3
    a, b = 0.31, 0.95
    cross = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    heart = np.stack(
        [
            16 * np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) - 2.5,
        ],
        1,
    )
    outer = np.linspace(np.pi * 0.25, np.pi * 1.75, 36)
    bite = np.linspace(np.pi * 1.595, np.pi * 0.405, 24)[1:-1]  # a second circle through the two horns
    crescent = np.concatenate(
        [np.stack([np.cos(outer), np.sin(outer)], 1), np.stack([0.49 + 0.74 * np.cos(bite), 0.74 * np.sin(bite)], 1)]
    )
    return {
        "circle": [circle],
        "square": [np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.80],
        "triangle": [np.stack([np.cos(thirds), np.sin(thirds)], 1)],
        "star": [star],
        "cross": [np.array(cross)],
        "ring": [circle, circle * 0.52],
        "heart": [heart / 16.5],
        "crescent": [crescent],
    }


_OUTLINES = _outlines()


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: center (x, y) and radius in pixels, rotation in radians."""

    thing: Thing
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Silhouette:
    """A placed thing's shape within its window of the scene.

    Args:
        top, left: The window's corner in the scene.
        alpha: (h, w) float32 coverage 0..1.
        inner: (h, w) float32 coverage of the part inside the outline.
    """

    top: int
    left: int
    alpha: np.ndarray
    inner: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the window in the scene."""
        h, w = self.alpha.shape
        return slice(self.top, self.top + h), slice(self.left, self.left + w)


def silhouette(placed: Placed, height: int, width: int, style: Style) -> Silhouette | None:
    """The anti-aliased shape (super-sampled, then averaged), or None if it is outside of (height, width)."""
    reach = placed.radius + 1
    left, top = max(0, int(placed.x - reach)), max(0, int(placed.y - reach))
    right, bottom = min(width, int(np.ceil(placed.x + reach))), min(height, int(np.ceil(placed.y + reach)))
    if right <= left or bottom <= top:
        return None
    scale = 4 if placed.radius < 16 else 2
    h, w = bottom - top, right - left
    cos, sin = np.cos(placed.angle), np.sin(placed.angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * placed.radius * scale
    origin = (np.array([placed.x - left, placed.y - top]) * scale) - 0.5
    contours = [
        np.round((outline @ turn + origin) * (1 << _SUBPIXEL)).astype(np.int32)
        for outline in _OUTLINES[placed.thing.shape]
    ]
    fine = np.zeros((h * scale, w * scale), np.uint8)
    cv2.fillPoly(fine, contours, 255, shift=_SUBPIXEL)
    edge = np.zeros_like(fine)
    thickness = max(1, round(2 * style.outline * scale * min(1.0, placed.radius / 12)))
    cv2.polylines(edge, contours, True, 255, thickness=thickness, shift=_SUBPIXEL)
    inner = cv2.subtract(fine, edge)
    shrink = lambda m: cv2.resize(m, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255  # noqa: E731
    return Silhouette(top, left, shrink(fine), shrink(inner))


def _texture(name: str, u: np.ndarray, v: np.ndarray, periods: float, radius: float) -> np.ndarray | float:
    """Share of the second tone, 0..1; u, v are coordinates in units of the radius; edges one pixel soft."""
    if name == "solid":
        return 0.0
    pixels = 2 * radius / periods  # a period's length
    if name == "striped":
        return np.clip(0.5 + 0.3 * pixels * np.sin(np.pi * periods * u), 0, 1)
    if name == "checkered":
        wave = np.sin(np.pi * periods / 2 * u * 1.2) * np.sin(np.pi * periods / 2 * v * 1.2)
        return np.clip(0.5 + 0.5 * pixels * wave, 0, 1)
    du, dv = u * periods / 2, v * periods / 2
    distance = np.hypot(du - np.round(du), dv - np.round(dv))
    return np.clip(0.5 + pixels * (0.31 - distance), 0, 1)


def paint(canvas: np.ndarray, placed: Placed, shape: Silhouette, style: Style, rng: np.random.Generator) -> None:
    """Draw a thing onto the (H, W, 3) float32 RGB canvas (0..255), in place."""
    h, w = shape.alpha.shape
    first = np.array(_RGB[placed.thing.colour], np.float32) * np.float32(rng.uniform(0.9, 1.06))
    first = first + style.colour_mix * (225 - first)
    tint = -style.tint if placed.thing.colour == "black" else style.tint
    if placed.thing.colour == "white":
        tint = -0.45  # white has nothing lighter to be striped with
    second = first * (1 + tint) if tint < 0 else first + min(tint, 0.62) * (255 - first)
    turn = placed.angle + rng.uniform(-0.6, 0.6)
    cos, sin = np.float32(np.cos(turn) / placed.radius), np.float32(np.sin(turn) / placed.radius)
    x = np.arange(shape.left, shape.left + w, dtype=np.float32)[None] + np.float32(0.5 - placed.x)
    y = np.arange(shape.top, shape.top + h, dtype=np.float32)[:, None] + np.float32(0.5 - placed.y)
    u, v = cos * x + sin * y, cos * y - sin * x
    mix = _texture(placed.thing.texture, u, v, style.periods * rng.uniform(0.88, 1.15), placed.radius)
    shade = (1.0 - 0.10 * v) * (1 - style.ink + style.ink * shape.inner / np.maximum(shape.alpha, 1e-3))
    tone = first + (second - first) * np.broadcast_to(np.float32(mix), (h, w))[..., None]
    alpha = shape.alpha[..., None]
    window = canvas[shape.window]
    window += alpha * (tone * shade[..., None] - window)
