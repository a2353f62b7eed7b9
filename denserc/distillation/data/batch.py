"""Input of one training step: samples of images, and batches of them.

Shape letters: B images, S the student's input side, F the foundation model's, T the teacher's,
K regions of one image, R regions of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True)
class DistillationSample:
    """The views of one image.

    Args:
        image: (3, S, S) uint8 RGB, longest side S, black to the right and below.
        foundation_image: (3, F, F) uint8, the same geometry at another size; None where it is not needed.
        crops: (K, 3, T, T) uint8, one per region.
        boxes: (K, 4) float32, (x1, y1, x2, y2) in 0..1 of the padded square.
        extent: (h, w), the part of the square that holds the image.
        unreadable: (path, reason) of images that were skipped on the way to this one.
        path: The image's file.
    """

    image: torch.Tensor
    foundation_image: torch.Tensor | None
    crops: torch.Tensor
    boxes: torch.Tensor
    extent: tuple[float, float]
    unreadable: tuple[tuple[str, str], ...] = ()
    path: str = ""


def collated(samples: Sequence[Any]) -> dict[str, Any]:
    """Collate the fields that samples have with and without views.

    Args:
        samples: B samples with `boxes`, `extent`, `unreadable` and `path`.
    """
    return {
        "boxes": tuple(s.boxes for s in samples),
        "extents": torch.tensor([s.extent for s in samples]),
        "unreadable": tuple(entry for s in samples for entry in s.unreadable),
        "paths": tuple(s.path for s in samples),
    }


@dataclass(frozen=True)
class DistillationBatch:
    """Samples put together.

    Args:
        images: (B, 3, S, S) uint8.
        foundation_images: (B, 3, F, F) uint8, or None.
        crops: (R, 3, T, T) uint8, image by image.
        boxes: B tensors (K, 4), as in the samples.
        extents: (B, 2) float32, (h, w).
        unreadable: Number of unreadable images among all samples.
        paths: Files of the B images.
    """

    images: torch.Tensor
    foundation_images: torch.Tensor | None
    crops: torch.Tensor
    boxes: tuple[torch.Tensor, ...]
    extents: torch.Tensor
    unreadable: tuple[tuple[str, str], ...] = field(default=())
    paths: tuple[str, ...] = field(default=())

    @staticmethod
    def collate(samples: Sequence[DistillationSample]) -> "DistillationBatch":
        """Samples of one size -> a batch."""
        foundation = None
        images = _stacked([s.image for s in samples])
        if samples[0].foundation_image is not None:
            shared = all(s.foundation_image is s.image for s in samples)
            foundation = images if shared else _stacked([s.foundation_image for s in samples])
        return DistillationBatch(
            images=images,
            foundation_images=foundation,
            crops=torch.cat([s.crops for s in samples]),
            **collated(samples),
        )

    @property
    def num_regions(self) -> int:
        """R."""
        return len(self.crops)

    def to(self, device: torch.device) -> "DistillationBatch":
        """The batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def views_on(self, device: torch.device) -> "DistillationBatch":
        """The same as `to`: the views are made already. See `RawBatch`."""
        return self.to(device)

    def pin_memory(self) -> "DistillationBatch":
        """The batch in page-locked memory; DataLoader calls it."""
        return self._map(torch.Tensor.pin_memory)

    def content_mask(self, grid: tuple[int, int]) -> torch.Tensor:
        """(B, h, w) bool: True for tokens whose center is inside the image, False in the padding."""
        h, w = grid
        y = (torch.arange(h, device=self.extents.device) + 0.5) / h
        x = (torch.arange(w, device=self.extents.device) + 0.5) / w
        return (y[None, :, None] < self.extents[:, 0, None, None]) & (x[None, None, :] < self.extents[:, 1, None, None])

    def _map(self, function) -> "DistillationBatch":
        images = function(self.images)
        foundation = self.foundation_images
        if foundation is not None:
            foundation = images if foundation is self.images else function(foundation)
        return replace(
            self,
            images=images,
            foundation_images=foundation,
            crops=function(self.crops),
            boxes=tuple(function(box) for box in self.boxes),
            extents=function(self.extents),
        )


def _stacked(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """(3, S, S) each -> (B, 3, S, S), channels last in memory as `crops` makes them; torch.stack would reorder."""
    return torch.stack([image.movedim(0, -1) for image in images]).movedim(-1, 1)
