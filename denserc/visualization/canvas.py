"""Drawing with legible text: enlarging small pictures, fonts, labels that do not cover each other, grids of pictures.

Pictures are (H, W, 3) uint8 RGB arrays throughout.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..structures import DataError

Rectangle = tuple[float, float, float, float]  # (x1, y1, x2, y2) pixels


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, `size` pixels high."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def fitted(title: str, text: ImageFont.FreeTypeFont, width: float) -> str:
    """The title, shortened with an ellipsis until it is at most `width` pixels wide."""
    if text.getlength(title) <= width:
        return title
    while title and text.getlength(title + "…") > width:
        title = title[:-1]
    return title + "…"


def check_picture(picture: np.ndarray) -> np.ndarray:
    """The picture itself; DataError when it is not (H, W, 3) uint8."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DataError(f"A picture must be (H, W, 3) uint8 RGB; got {picture.shape} {picture.dtype}.")
    return picture


def enlarge(picture: np.ndarray, min_side: int) -> tuple[np.ndarray, int]:
    """Enlarge by a whole factor until the shorter side has at least `min_side` pixels; (picture, factor)."""
    picture = check_picture(picture)
    factor = max(1, -(-min_side // min(picture.shape[:2])))
    if factor == 1:
        return picture.copy(), 1
    size = (picture.shape[1] * factor, picture.shape[0] * factor)
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)), factor


def overlap(a: Rectangle, b: Rectangle) -> float:
    """The common area of two rectangles, square pixels."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


class LabelPlacer:
    """Find a place for each label so that labels stay inside the picture and off each other.

    Args:
        size: (h, w) of the picture.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self.taken: list[Rectangle] = []

    def place(self, box: Rectangle, text_size: tuple[float, float]) -> Rectangle:
        """The best of some places around a box: above, inside its top, below, inside its bottom, left or right aligned.

        Args:
            box: Box to label.
            text_size: (h, w) of the label.
        """
        height, width = text_size
        lefts = (box[0], box[2] - width, (box[0] + box[2] - width) / 2)
        tops = (box[1] - height, box[1], box[3], box[3] - height, (box[1] + box[3] - height) / 2)
        best, best_cost = None, float("inf")
        for rank, (top, left) in enumerate((top, left) for left in lefts for top in tops):
            left = min(max(left, 0.0), max(self.size[1] - width, 0.0))
            top = min(max(top, 0.0), max(self.size[0] - height, 0.0))
            place = (left, top, left + width, top + height)
            cost = sum(overlap(place, other) for other in self.taken) + 0.01 * rank
            if cost < best_cost:
                best, best_cost = place, cost
        self.taken.append(best)
        return best


def blend(picture: np.ndarray, mask: np.ndarray, color: Sequence[int], opacity: float) -> None:
    """Tint the pixels of a mask (H, W) bool, in place."""
    picture[mask] = (picture[mask] * (1.0 - opacity) + np.asarray(color) * opacity).round().astype(np.uint8)


def grid_of_pictures(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    gap: int = 8,
    cell_height: int | None = None,
) -> np.ndarray:
    """Pictures in rows and columns on white.

    Args:
        rows: Pictures; all are scaled to one height, widths may differ.
        column_titles: One a column, above.
        row_titles: One a row, at the left.
        gap: White pixels between pictures.
        cell_height: Height of every picture; by default the tallest one's.
    """
    if not rows or not all(rows):
        raise DataError("A grid of pictures needs at least one row, and at least one picture in each.")
    height = cell_height or max(check_picture(p).shape[0] for row in rows for p in row)
    scaled = [[_to_height(picture, height) for picture in row] for row in rows]
    columns = max(len(row) for row in scaled)
    widths = [max(row[c].shape[1] for row in scaled if c < len(row)) for c in range(columns)]
    text = font(max(14, height // 22))
    title_height = 2 * text.size if column_titles else 0
    title_width = int(max((text.getlength(t) for t in row_titles), default=-2 * gap) + 2 * gap)
    size = (title_width + sum(widths) + gap * (columns + 1), title_height + (height + gap) * len(scaled) + gap)
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    lefts = [title_width + gap + sum(widths[:c]) + gap * c for c in range(columns)]
    for left, width, title in zip(lefts, widths, column_titles, strict=False):
        draw.text((left + width / 2, title_height / 2 + gap / 2), fitted(title, text, width), (20, 20, 20), text, "mm")
    for r, row in enumerate(scaled):
        top = title_height + gap + r * (height + gap)
        if r < len(row_titles):
            draw.text((gap, top + height / 2), row_titles[r], (20, 20, 20), text, "lm")
        for left, picture in zip(lefts, row, strict=False):
            sheet.paste(Image.fromarray(picture), (left, top))
    return np.array(sheet)


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
