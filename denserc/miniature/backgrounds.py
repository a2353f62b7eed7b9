"""Stuff: large procedural textures, drawn once per domain, from which scenes cut their backgrounds."""

from functools import cache

import cv2
import numpy as np

from .world import STUFF, Domain

TILE = 320  # side of a texture in pixels; scenes cut random windows out of it

# RGB of each stuff in the main domain; the transfer domain paints the same stuff in paler, shifted colors.
_PALETTE = {
    "grass": (88, 140, 62),
    "sand": (212, 188, 132),
    "water": (52, 108, 168),
    "brick": (158, 84, 62),
    "wood": (150, 108, 66),
    "snow": (232, 238, 246),
    "road": (92, 92, 98),
    "sky": (142, 192, 236),
}


def _noise(rng: np.random.Generator, sigma_x: float, sigma_y: float) -> np.ndarray:
    """(TILE, TILE) smooth noise of zero mean and unit deviation."""
    field = rng.standard_normal((TILE, TILE)).astype(np.float32)
    if max(sigma_x, sigma_y) > 0:
        field = cv2.GaussianBlur(field, (0, 0), max(sigma_x, 0.01), sigmaY=max(sigma_y, 0.01))
    return (field - field.mean()) / field.std()


def _relief(name: str, rng: np.random.Generator, coarse: float) -> np.ndarray:
    """(TILE, TILE) brightness pattern, about -1..1, that distinguishes one stuff from another; `coarse` scales it."""
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / coarse
    if name == "grass":
        return 0.5 * _noise(rng, 0.6 * coarse, 2.5 * coarse) + 0.2 * _noise(rng, 9, 9)
    if name == "sand":
        return 0.3 * _noise(rng, 0, 0) + 0.3 * np.sin(0.35 * y + 1.6 * _noise(rng, 14, 14))
    if name == "water":
        return 0.6 * np.sin(0.8 * y + 1.2 * np.sin(0.12 * x) + 0.8 * _noise(rng, 10, 4)) + 0.15 * _noise(rng, 3, 1)
    if name == "brick":
        row = np.floor(y / 9)
        mortar = ((y % 9) < 1.6) | (((x + 9 * (row % 2)) % 18) < 1.6)
        return np.where(mortar, 1.5, 0.12 * _noise(rng, 1, 1))
    if name == "wood":
        seam = (x % 22) < 1.4
        return np.where(seam, -1.4, 0.35 * np.sin(1.1 * x + 1.5 * _noise(rng, 3, 30)) + 0.2 * _noise(rng, 0.5, 12))
    if name == "snow":
        return 0.35 * _noise(rng, 12, 8) + 0.12 * _noise(rng, 0.5, 0.5)
    if name == "road":
        return 0.45 * _noise(rng, 0.9 * coarse, 0.9 * coarse) + 0.15 * _noise(rng, 20, 20)
    return np.clip(0.9 * _noise(rng, 26, 11), -0.5, 1.6)  # sky: clouds


@cache
def stuff_texture(name: str, domain: Domain) -> np.ndarray:
    """The texture of one stuff.

    Returns:
        (TILE, TILE, 3) float32 RGB in 0..255, always the same for the same arguments; not to be written to.
    """
    transfer = domain is Domain.TRANSFER
    rng = np.random.default_rng([7, STUFF.index(name), int(transfer)])
    colour = np.array(_PALETTE[name], np.float32)
    if transfer:
        colour = 0.62 * colour + 0.30 * 255 * np.array([1.0, 0.95, 0.85], np.float32)
    relief = _relief(name, rng, 1.5 if transfer else 1.0)
    strength = 26.0 if transfer else 34.0
    texture = np.clip(colour + strength * relief[..., None], 0, 255).astype(np.float32)
    texture.setflags(write=False)
    return texture


def cut_stuff(name: str, domain: Domain, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random window (height, width, 3) of a texture, mirrored at random and of random brightness, float32 RGB."""
    texture = stuff_texture(name, domain)
    if height > TILE or width > TILE:
        raise ValueError(f"A background of {(height, width)} does not fit into a texture of {(TILE, TILE)} pixels.")
    top, left = rng.integers(0, TILE - height + 1), rng.integers(0, TILE - width + 1)
    window = texture[top : top + height, left : left + width]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    return window * np.float32(rng.uniform(0.86, 1.12))
