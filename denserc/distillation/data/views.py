"""Output of the loader when the device makes the views: raw pixels and the boxes to cut.

The views are bitwise identical to the loader's with Pillow (`data.windows`); so `DISTILL.VIEWS` may change in the
middle of a training. Shape letters as in `batch`; P pixels of all images of a batch, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import torch

from ...data.images.device_resizing import Windows, resize_windows
from ...data.images.resizing import fitted
from .batch import DistillationBatch, collated
from .crops import CropResize


class ViewPlace(Enum):
    """Place where images and crops are resized."""

    LOADER = "loader"  # by the processes that read: DATALOADER.NUM_WORKERS
    DEVICE = "device"  # by MODEL.DEVICE, from one upload of what was read


@dataclass(frozen=True)
class ViewSizes:
    """Sides of the squares: S, F or None, T, and how a region's crop becomes one."""

    student: int
    foundation: int | None
    crop: int
    crop_resize: CropResize


@dataclass(frozen=True)
class RawSample:
    """One image without views.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        windows: (K, 4) int64, the regions' crops, (x1, y1, x2, y2) in pixels.
        views: Views to make of them.
        boxes, extent, unreadable, path: Fields of `DistillationSample`.
    """

    pixels: torch.Tensor
    windows: torch.Tensor
    views: ViewSizes
    boxes: torch.Tensor
    extent: tuple[float, float]
    unreadable: tuple[tuple[str, str], ...] = ()
    path: str = ""


@dataclass(frozen=True)
class RawBatch:
    """Samples put together.

    Args:
        pixels: (P, 3) uint8, one image after another.
        sizes: (B, 2) int64, (h, w); stays on the CPU, as shapes follow from it.
        windows: B tensors (K, 4); they stay there too.
        views: Views to make of them.
        boxes, extents, unreadable, paths: Fields of `DistillationBatch`.
    """

    pixels: torch.Tensor
    sizes: torch.Tensor
    windows: tuple[torch.Tensor, ...]
    views: ViewSizes
    boxes: tuple[torch.Tensor, ...]
    extents: torch.Tensor
    unreadable: tuple[tuple[str, str], ...] = field(default=())
    paths: tuple[str, ...] = field(default=())

    @staticmethod
    def collate(samples: Sequence[RawSample]) -> "RawBatch":
        """Samples of any sizes -> a batch."""
        return RawBatch(
            pixels=torch.cat([s.pixels.flatten(0, 1) for s in samples]),
            sizes=torch.tensor([s.pixels.shape[:2] for s in samples]),
            windows=tuple(s.windows for s in samples),
            views=samples[0].views,
            **collated(samples),
        )

    @property
    def num_regions(self) -> int:
        """R."""
        return sum(map(len, self.windows))

    def pin_memory(self) -> "RawBatch":
        """Move the pixels to page-locked memory; DataLoader calls this."""
        boxes = tuple(box.pin_memory() for box in self.boxes)
        return replace(self, pixels=self.pixels.pin_memory(), boxes=boxes, extents=self.extents.pin_memory())

    def views_on(self, device: torch.device) -> DistillationBatch:
        """The batch that the distiller takes, its views made on the device."""
        pixels = self.pixels.to(device, non_blocking=True)
        images = self._squares(pixels, self.views.student)
        foundation = None
        if self.views.foundation is not None:
            same = self.views.foundation == self.views.student
            foundation = images if same else self._squares(pixels, self.views.foundation)
        return DistillationBatch(
            images=images,
            foundation_images=foundation,
            crops=self._crops(pixels),
            boxes=tuple(box.to(device, non_blocking=True) for box in self.boxes),
            extents=self.extents.to(device, non_blocking=True),
            unreadable=self.unreadable,
            paths=self.paths,
        )

    def _squares(self, pixels: torch.Tensor, side: int) -> torch.Tensor:
        """`padded_square` of all images: (B, 3, side, side)."""
        whole = torch.cat([torch.zeros_like(self.sizes), self.sizes.flip(1)], dim=1)
        content = fitted(self.sizes, side)
        return self._resized(pixels, torch.arange(len(whole)), whole, content, torch.zeros_like(content), side)

    def _crops(self, pixels: torch.Tensor) -> torch.Tensor:
        """Make the crops of all regions as `CropTransform` does: (R, 3, T, T)."""
        image = torch.repeat_interleave(torch.tensor([len(windows) for windows in self.windows]))
        boxes, side = torch.cat(self.windows), self.views.crop
        content = torch.full((len(boxes), 2), side)
        if self.views.crop_resize is CropResize.LETTERBOX:
            content = fitted((boxes[:, 2:] - boxes[:, :2]).flip(1), side)
        return self._resized(pixels, image, boxes, content, (side - content) // 2, side)

    def _resized(
        self,
        pixels: torch.Tensor,
        image: torch.Tensor,
        boxes: torch.Tensor,
        content: torch.Tensor,
        corner: torch.Tensor,
        side: int,
    ) -> torch.Tensor:
        """Windows of the images with these numbers, (R,), as views."""
        count = self.sizes.prod(dim=1)
        first = count.cumsum(0) - count
        windows = Windows(first[image], self.sizes[image, 1], boxes, content, corner)
        return resize_windows(pixels, windows, side).movedim(-1, 1)
