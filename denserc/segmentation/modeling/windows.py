"""Views of a picture that the network looks at, and how their scores become one map.

Shape letters: V views, T classes, (H, W) pixels, (a, b) pixels of a window.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ...structures import ConfigurationError
from .options import WholePicture

PADDED_MULTIPLE = 32  # Detectron2's size_divisibility of CAT-Seg's unused backbone


def resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, *size), bilinear without antialiasing."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def window_starts(length: int, own: int, stride: int) -> list[int]:
    """First pixels of windows of `own` pixels along an axis; one that ends at the border is added if missing."""
    starts = list(range(0, length - own + 1, stride))
    return starts if starts[-1] == length - own else [*starts, length - own]


class Views(ABC):
    """Views of a picture that the model runs on outside of training."""

    @abstractmethod
    def cut(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(3, H, W) normalized picture -> V pictures, (3, ., .)."""

    @abstractmethod
    def merge(self, logits: torch.Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
        """Probabilities of some classes.

        Args:
            logits: (V, T, ., .) of the views, in the network's resolution.
            image_size: (H, W) of the picture that was cut.
            size: (h, w) of the result.

        Returns:
            (T, h, w) probabilities.
        """


@dataclass(frozen=True)
class Whole(Views):
    """The picture as one view.

    Args:
        kind: See WholePicture.
    """

    kind: WholePicture

    def cut(self, image: torch.Tensor) -> list[torch.Tensor]:
        if self.kind is WholePicture.EXACT:
            return [image]
        h, w = image.shape[-2:]
        return [F.pad(image, (0, -w % PADDED_MULTIPLE, 0, -h % PADDED_MULTIPLE))]

    def merge(self, logits: torch.Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
        return resize(logits.sigmoid(), size)[0]


@dataclass(frozen=True)
class SlidingWindows(Views):
    """Windows of a canvas, and the whole picture squashed to the size of a window.

    Windows are averaged where they overlap, then with the whole picture. Windows that do not end at the border are
    followed by one that does.

    Args:
        side: Side of a window; a canvas that is smaller has one window of its own size.
        overlap: Share of a window that the next one covers again, in 0..1 without 1.
        canvas: (h, w) that every picture is squashed to, whatever its aspect; None for its own size.
    """

    side: int
    overlap: float
    canvas: tuple[int, int] | None

    def __post_init__(self):
        if self.side < 1 or not 0 <= self.overlap < 1 or self.stride < 1:
            raise ConfigurationError(
                f"Sliding windows need a side of at least 1 and an overlap in 0..1, without 1; got {self.side} and "
                f"{self.overlap}."
            )

    @property
    def stride(self) -> int:
        """Distance between windows, pixels."""
        return int(self.side * (1 - self.overlap))

    def places(self, canvas: tuple[int, int]) -> tuple[tuple[int, int], list[tuple[int, int]]]:
        """(a, b) of the windows on a canvas, and their upper left corners (row, column) in reading order."""
        size = min(self.side, canvas[0]), min(self.side, canvas[1])
        rows, columns = (window_starts(*one, self.stride) for one in zip(canvas, size, strict=True))
        return size, [(row, column) for row in rows for column in columns]

    def cut(self, image: torch.Tensor) -> list[torch.Tensor]:
        canvas = self.canvas or tuple(image.shape[-2:])
        squashed = resize(image[None], canvas)[0]
        (a, b), places = self.places(canvas)
        windows = [squashed[:, row : row + a, column : column + b] for row, column in places]
        return [*windows, resize(image[None], (a, b))[0]]

    def merge(self, logits: torch.Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
        canvas = self.canvas or tuple(image_size)
        (a, b), places = self.places(canvas)
        scores = resize(logits, (a, b)).sigmoid()  # (V, T, a, b)
        total = scores.new_zeros(scores.shape[1], *canvas)
        count = scores.new_zeros(canvas)
        for one, (row, column) in zip(scores, places, strict=False):
            total[:, row : row + a, column : column + b] += one
            count[row : row + a, column : column + b] += 1
        merged = (total / count + resize(scores[-1:], canvas)[0]) / 2
        return resize(merged[None], size)[0]
