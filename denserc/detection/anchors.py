"""Anchors: one scale and a few ratios at every cell of every map, for strides that need not be whole numbers."""

from collections.abc import Sequence

import torch
from torch import nn


class AnchorGrid(nn.Module):
    """Anchors of side scale x stride around the upper-left corner of each cell.

    Detectron2's generator places the same boxes but takes an absolute size per level; here one scale
    serves all strides, 3.5 ... 56 of a patch of 14 included.

    Args:
        strides: pixels per cell of each level, finest first.
        scale: side of the square anchor in strides.
        ratios: height / width of the anchors of one cell; the area does not change with it.
    """

    def __init__(self, *, strides: Sequence[float], scale: float, ratios: Sequence[float]):
        super().__init__()
        self.strides = tuple(float(stride) for stride in strides)
        root = torch.tensor([float(ratio) for ratio in ratios]).sqrt()
        cells = []
        for stride in self.strides:
            half_w, half_h = 0.5 * stride * scale / root, 0.5 * stride * scale * root
            cells.append(torch.stack([-half_w, -half_h, half_w, half_h], dim=1))
        self.register_buffer("cells", torch.stack(cells), persistent=False)  # (levels, ratios, 4)

    @property
    def num_cell_anchors(self) -> int:
        """Anchors per cell."""
        return self.cells.shape[1]

    def forward(self, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """Sizes (h, w) of the maps -> per level (h * w * ratios, 4), ordered by y, then x, then ratio."""
        anchors = []
        for (h, w), stride, cell in zip(sizes, self.strides, self.cells, strict=True):
            y = torch.arange(h, device=cell.device, dtype=cell.dtype) * stride
            x = torch.arange(w, device=cell.device, dtype=cell.dtype) * stride
            y, x = torch.meshgrid(y, x, indexing="ij")
            corner = torch.stack([x, y, x, y], dim=-1)  # (h, w, 4)
            anchors.append((corner[:, :, None] + cell).reshape(-1, 4))
        return anchors
