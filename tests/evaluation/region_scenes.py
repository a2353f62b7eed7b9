"""Drawn scenes with segments, an encoder that mostly names them, and one of several gloo processes that share them.

As a script: RANK WORLD PORT FILE; the first process writes its metrics to FILE.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from denserc.evaluation import RegionReport, measure_regions
from denserc.structures import PixelStatistics, TextEmbeddings

NAMES = ("red ball", "green cube", "blue star", "dark sea", "pale sky", "grey road", "unused")
COLOURS = np.array(
    [[220, 20, 20], [20, 220, 20], [20, 20, 220], [20, 20, 80], [230, 230, 250], [120, 120, 120], [0, 0, 0]],
    dtype=np.uint8,
)
TEXT = TextEmbeddings(names=NAMES, vectors=torch.eye(7))


class Mixing(nn.Module):
    """The feature of each 4 x 4 cell: the class of its color, through a fixed random mixture."""

    def __init__(self):
        super().__init__()
        self.mixture = torch.eye(7) + 0.5 * torch.randn(7, 7, generator=torch.Generator().manual_seed(3))

    def forward(self, images):
        cells = nn.functional.avg_pool2d(images, 4)  # (B, 3, h, w)
        colours = torch.from_numpy(COLOURS).float() / 255
        nearest = torch.cdist(cells.flatten(2).transpose(1, 2), colours[None]).argmin(-1)
        return (torch.eye(7)[nearest] @ self.mixture).transpose(1, 2).reshape(len(images), 7, *cells.shape[-2:])


def scene(seed: int, height: int = 64, width: int = 64) -> dict:
    """Three things on two kinds of stuff."""
    rng = np.random.default_rng(seed)
    ids = np.full((height, width), 3 + seed % 2)
    ids[: height // 2] = 5
    things = []
    for k in range(3):
        x, y = 2 + 20 * k, int(rng.integers(2, height - 20))
        ids[y : y + 14, x : x + 14] = k
        things.append({"label": k, "isthing": True, "bbox": (x, y, x + 14, y + 14), "mask": ids == k})
    stuff = [{"label": k, "isthing": False, "mask": ids == k} for k in (3 + seed % 2, 5)]
    return {"image": COLOURS[ids], "segments": things + stuff}


def measure(entries, **options) -> RegionReport | None:
    defaults = {"names": NAMES, "input_size": 64, "pixels": PixelStatistics((0.0,) * 3, (1.0,) * 3), "progress": False}
    return measure_regions(Mixing(), TEXT, entries, **(defaults | options))


if __name__ == "__main__":
    import torch.distributed as dist
    from detectron2.utils import comm

    rank, world, port, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    comm.create_local_process_group(world)
    report = measure([scene(seed) for seed in range(3)])
    assert (report is None) == (rank > 0)
    if report is not None:
        file.write_text(json.dumps({"metrics": report.metrics, "rows": report.class_rows(), **report.protocol}))
