"""Captioned crops: the training pictures of the miniature CLIP, and the pictures on which it is measured.

A box is (x1, y1, x2, y2) in whole pixels of the scene, x2 and y2 exclusive.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .captions import write_caption
from .scenes import Scene
from .world import Thing

MAX_NAMED = 4  # things a caption names at most; more would not fit into the text tower's context


@dataclass(frozen=True)
class View:
    """A scene with the boxes and areas from which crops are chosen.

    Args:
        scene: Scene of the view.
        boxes: (T, 4) int, around the visible area of each thing.
        areas: (S,) visible pixels of every segment, stuff first.
    """

    scene: Scene
    boxes: np.ndarray
    areas: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> "View":
        """The view of a scene."""
        boxes = np.zeros((len(scene.things), 4), np.int64)
        for i in range(len(scene.things)):
            mask = scene.thing_mask(i)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return cls(scene, boxes, np.bincount(scene.segments.ravel(), minlength=len(scene.names)))


def widened(box: np.ndarray, by: tuple[float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with its sides multiplied by `by` = (x, y) about its center, cut at the picture's borders (h, w)."""
    x1, y1, x2, y2 = box
    grow_x, grow_y = (x2 - x1) * (by[0] - 1) / 2, (y2 - y1) * (by[1] - 1) / 2
    left, top = max(0, int(round(x1 - grow_x))), max(0, int(round(y1 - grow_y)))
    right, bottom = min(size[1], int(round(x2 + grow_x))), min(size[0], int(round(y2 + grow_y)))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _random_box(view: View, rng: np.random.Generator, thing_share: float) -> tuple[int, int, int, int]:
    """Around a thing, or a cell of a 1..6 x 1..6 grid (half of the rest), any window, or the whole picture."""
    h, w = view.scene.segments.shape
    if rng.random() < thing_share and len(view.boxes):
        x1, y1, x2, y2 = widened(view.boxes[rng.integers(len(view.boxes))], tuple(rng.uniform(0.95, 1.7, 2)), (h, w))
        dx, dy = rng.uniform(-0.1, 0.1, 2) * (x2 - x1, y2 - y1)
        x1, x2 = max(0, int(x1 + dx)), min(w, int(x2 + dx))
        y1, y2 = max(0, int(y1 + dy)), min(h, int(y2 + dy))
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)
    chance = rng.random()
    if chance < 0.5:
        columns, rows = rng.integers(1, 7, 2)
        i, j = rng.integers(columns), rng.integers(rows)
        return i * w // columns, j * h // rows, (i + 1) * w // columns, (j + 1) * h // rows
    if chance < 0.75:
        bw, bh = (rng.uniform(0.3, 1.0, 2) * (w, h)).astype(int)
        x, y = rng.integers(w - bw + 1), rng.integers(h - bh + 1)
        return x, y, x + bw, y + bh
    return 0, 0, w, h


class CaptionedCrop(NamedTuple):
    """A picture with its caption.

    Args:
        image: (side, side, 3) uint8 RGB.
        caption: Description of it.
        subject: The thing that it clearly shows above all others, or None.
    """

    image: np.ndarray
    caption: str
    subject: Thing | None


def _look(view: View, box: tuple[int, int, int, int]) -> tuple[np.ndarray, list[int]]:
    """Each segment's share of a crop, and the recognizable things in it, large to small."""
    x1, y1, x2, y2 = box
    counts = np.bincount(view.scene.segments[y1:y2, x1:x2].ravel(), minlength=len(view.areas))
    share = counts / ((y2 - y1) * (x2 - x1))
    whole = counts / np.maximum(view.areas, 1)  # how much of each segment's visible area the crop holds
    recognisable = ((share >= 0.04) & (whole >= 0.35)) | (share >= 0.25) | ((share >= 0.01) & (whole >= 0.8))
    ground = len(view.scene.stuff)
    return share, [i for i in np.argsort(-counts, kind="stable") if i >= ground and recognisable[i]]


def caption_crop(view: View, box: tuple[int, int, int, int], rng: np.random.Generator) -> str:
    """A caption of what a crop shows: its larger things, named from large to small, and at times its stuff."""
    scene, ground = view.scene, len(view.scene.stuff)
    share, order = _look(view, box)
    named = [i for k, i in enumerate(order) if k == 0 or rng.random() < 0.35 + 2 * share[i]][:MAX_NAMED]
    seen = [scene.stuff[i] for i in range(ground) if share[i] >= 0.2]
    if named:
        stuff = seen if rng.random() < 0.45 else []
    else:
        stuff = seen or [scene.stuff[int(np.argmax(share[:ground]))]]
    return write_caption([scene.things[i - ground] for i in named], stuff, scene.domain, rng)


def subject_of_crop(view: View, box: tuple[int, int, int, int]) -> Thing | None:
    """The thing that fills at least a tenth of a crop and thrice as much as any other, if there is one."""
    share, order = _look(view, box)
    if not order or share[order[0]] < 0.1 or (len(order) > 1 and share[order[0]] < 3 * share[order[1]]):
        return None
    return view.scene.things[order[0] - len(view.scene.stuff)]


def cut(image: np.ndarray, box: tuple[int, int, int, int], side: int) -> np.ndarray:
    """(side, side, 3) uint8: the crop, squeezed to a square as the crops of distillation's teacher are."""
    x1, y1, x2, y2 = box
    return cv2.resize(image[y1:y2, x1:x2], (side, side), interpolation=cv2.INTER_LINEAR)


def captioned_crop(view: View, side: int, rng: np.random.Generator, *, thing_share: float = 0.5) -> CaptionedCrop:
    """A random crop of a scene, mirrored half the time, and its caption.

    Args:
        view: View of the scene.
        side: Side of the returned crop, pixels.
        rng: Source of chance.
        thing_share: Share of crops placed around a thing; the others are grid cells, windows and whole scenes.
    """
    box = _random_box(view, rng, thing_share)
    crop = cut(view.scene.image, box, side)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return CaptionedCrop(crop, caption_crop(view, box, rng), subject_of_crop(view, box))
