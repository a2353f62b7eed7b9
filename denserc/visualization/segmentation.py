"""Label maps as tints over pictures, with a legend; novel classes are marked."""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..structures import DataError
from .canvas import check_picture, enlarge, fitted, font, grid_of_pictures
from .detections import NOVEL

_GOLDEN = 0.6180339887498949
_LEVELS = ((0.95, 0.85), (0.6, 0.95), (0.95, 0.55))  # saturation and value, in turn


def class_colors(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB: neighbors differ in hue, and the color of a class does not depend on the count."""
    rgb = [colorsys.hsv_to_rgb(i * _GOLDEN % 1.0, *_LEVELS[i % len(_LEVELS)]) for i in range(count)]
    return (np.array(rgb).reshape(-1, 3) * 255).round().astype(np.uint8)


def draw_labels(picture: np.ndarray, labels: np.ndarray, colors: np.ndarray, *, opacity: float = 0.6) -> np.ndarray:
    """Tint a picture by its labels.

    Args:
        picture: (H, W, 3) uint8 RGB.
        labels: (H, W) whole numbers; pixels without a color (ignored, background) keep the picture's.
        colors: (C, 3) uint8, see `class_colors`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: Picture and labels have different sizes.
    """
    picture = check_picture(picture)
    if labels.shape != picture.shape[:2]:
        raise DataError(f"The label map is {labels.shape} (h, w), the picture {picture.shape[:2]}.")
    known = (labels >= 0) & (labels < len(colors))
    tinted = picture.copy()
    mixed = (1 - opacity) * picture[known] + opacity * colors[labels[known].astype(np.int64)]
    tinted[known] = mixed.round().astype(np.uint8)
    return tinted


def draw_legend(names: Sequence[str], colors: np.ndarray, novel: Sequence[bool], *, width: int) -> np.ndarray:
    """Names with their colors in columns on white; those of novel classes are red and end with an asterisk.

    Args:
        names: Class names.
        colors: (N, 3) uint8.
        novel: True for novel classes, one flag per name.
        width: Width of the result, pixels.
    """
    text = font(15)
    titles = [f"{name}*" if flag else name for name, flag in zip(names, novel, strict=True)]
    cell = min(width, int(max([text.getlength(title) for title in titles], default=0)) + 40)
    columns = max(1, width // max(cell, 1))
    rows = max(1, -(-len(titles) // columns))
    sheet = Image.new("RGB", (width, 24 * rows + 4), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for i, (title, color, flag) in enumerate(zip(titles, colors, novel, strict=True)):
        left, top = i % columns * cell, i // columns * 24 + 4
        draw.rectangle((left + 4, top, left + 20, top + 16), fill=tuple(int(v) for v in color), outline=(90, 90, 90))
        ink = NOVEL if flag else (20, 20, 20)
        draw.text((left + 26, top + 8), fitted(title, text, cell - 28), ink, text, "lm")
    return np.array(sheet)


def segmentation_page(
    pictures: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[np.ndarray]],
    names: Sequence[str],
    *,
    novel: Sequence[str] = (),
    min_side: int = 256,
) -> np.ndarray:
    """A page in the manner of the paper's Figure 7: per row a picture, then its label maps, and the legend below.

    Args:
        pictures: P pictures.
        columns: Title -> P label maps, e.g. "ground truth" and encoders.
        names: Name of each label; the legend has those that occur.
        novel: Names that training has not used.
        min_side: Pictures whose shorter side is smaller are enlarged by a whole factor.
    """
    colors = class_colors(len(names))
    rows = []
    for i, picture in enumerate(pictures):
        large, factor = enlarge(picture, min_side)
        maps = [one[i].repeat(factor, axis=0).repeat(factor, axis=1) for one in columns.values()]
        rows.append([large, *(draw_labels(large, one, colors) for one in maps)])
    page = grid_of_pictures(rows, column_titles=["picture", *columns])
    occurring = np.unique(np.concatenate([labels.reshape(-1) for maps in columns.values() for labels in maps]))
    shown = [int(label) for label in occurring if 0 <= label < len(names)]
    legend = draw_legend(
        [names[i] for i in shown], colors[shown], [names[i] in set(novel) for i in shown], width=page.shape[1]
    )
    return np.concatenate([page, legend])
