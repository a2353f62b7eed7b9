"""The loader's work on one image and one core, against CLIPSelf's and DeCLIP's use of PIL: processor time and pixels.

    python -m benchmarks.data_path --images DIR

The work is decoding, the student's square, the foundation model's square and the teacher's crops. Without a folder,
JPEGs of COCO's size are drawn. With DISTILL.VIEWS device the loader's cores only read, and the device, a GPU in a
training, makes the views. Here that part is timed on a CPU core and reported as a row of its own.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from benchmarks.measure import in_turns, machine, ratio, write, written
from benchmarks.reference import pil_views
from denserc.data.datasets.image_lists import folder_list
from denserc.data.images.reading import read_rgb
from denserc.data.images.resizing import BicubicKernel
from denserc.distillation.data.crops import CropResize, CropTransform, content_extent, padded_square, to_padded_square
from denserc.distillation.data.views import RawBatch, RawSample, ViewSizes
from denserc.distillation.distiller import normalized
from denserc.structures import CLIP_PIXELS


def drawn_images(folder: Path, count: int) -> list[str]:
    """JPEGs of 640 x 480 with smooth shapes and some grain, about as large in bytes as photographs."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((640, 480), Image.BICUBIC)
        grain = rng.normal(0, 12, (480, 640, 1))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=90)
    return [str(folder / f"{index}.jpg") for index in range(count)]


def grid(side: int) -> torch.Tensor:
    """(side * side, 4) cells in 0..1."""
    edges = torch.linspace(0, 1, side + 1)
    return torch.stack(
        [torch.stack([edges[j], edges[i], edges[j + 1], edges[i + 1]]) for i in range(side) for j in range(side)]
    )


def our_views(path: str, boxes: torch.Tensor, way: BicubicKernel, options: argparse.Namespace):
    """The loader's views of one file."""
    pixels = read_rgb(path)
    squares = (padded_square(pixels, side, way) for side in (options.student, options.foundation))
    return *squares, CropTransform(size=options.crop, resampling=way)(pixels, boxes)


def as_read(path: str, boxes: torch.Tensor, options: argparse.Namespace) -> RawBatch:
    """The loader's output for one file where the device makes the views."""
    pixels = read_rgb(path)
    extent = content_extent(pixels)
    windows = CropTransform(size=options.crop).windows(pixels.shape[:2], boxes)
    sizes = ViewSizes(options.student, options.foundation, options.crop, CropResize.SQUARE)
    sample = RawSample(torch.from_numpy(pixels), windows, sizes, to_padded_square(boxes, extent), extent, path=path)
    return RawBatch.collate([sample])


def made(raw: RawBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The device's part, on the CPU."""
    batch = raw.views_on(torch.device("cpu"))
    return batch.images[0], batch.foundation_images[0], batch.crops


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="a folder of images; drawn ones otherwise")
    parser.add_argument("--count", type=int, default=16, help="images of it")
    parser.add_argument("--student", type=int, default=1024)
    parser.add_argument("--foundation", type=int, default=896)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--grid", type=int, default=6, help="rows and columns of regions: 6 x 6 is the most there is")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two images, once")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.quick:
        options.count, options.repeats = 2, 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's worker
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = [path for path, _ in folder_list(options.images)][: options.count] if options.images else []
            report = compare(paths or drawn_images(Path(folder), options.count), options)
    finally:
        torch.set_num_threads(threads)
    print(f"{options.count} images, {options.grid**2} crops each, one core of {report['machine']}")
    print(report["table"])
    write("data_path", report)
    return report


ORIGINALS, READ, MADE = "originals", "device: reading", "device: views, on a CPU core"
WORK = {
    ORIGINALS: "loader: all, float32",
    BicubicKernel.PILLOW.value: "loader: all, uint8",
    BicubicKernel.TORCHVISION.value: "loader: all, uint8",
    READ: "loader: only decoding",
    MADE: "device: all views, uint8",
}


def compare(paths: list[str], options: argparse.Namespace) -> dict:
    """Time the variants interleaved, image by image, and compare their pixels."""
    boxes = grid(options.grid)
    sizes = {"student": options.student, "foundation": options.foundation, "crop": options.crop}
    views = {ORIGINALS: lambda path: pil_views(path, boxes, **sizes, pixels=CLIP_PIXELS)}
    views |= {way.value: lambda path, way=way: our_views(path, boxes, way, options) for way in BicubicKernel}
    seconds = {name: [] for name in WORK}
    for path in paths:
        calls = {name: partial(way, path) for name, way in views.items()}
        calls |= {READ: partial(as_read, path, boxes, options), MADE: partial(made, as_read(path, boxes, options))}
        taken = in_turns(calls, repeats=options.repeats, settle=1, clock=time.process_time)
        for name, values in taken.items():
            seconds[name].append(statistics.median(values))

    views[MADE] = lambda path: made(as_read(path, boxes, options))
    apart = {name: differences(way, views[ORIGINALS], paths) for name, way in views.items() if name != ORIGINALS}
    rows = []
    for name, values in seconds.items():
        rows.append({"way": name, "work": WORK[name], "milliseconds": 1e3 * statistics.median(values)})
        if name != MADE:  # no work of the loader's core
            rows[-1]["times_as_fast"] = ratio(seconds[ORIGINALS], values)
        if name in apart:
            rows[-1] |= dict(zip(("largest_difference_of_255", "share_that_differs"), apart[name], strict=True))
    headers = [
        "way",
        "who does what",
        "ms an image",
        "images a second",
        "times as fast",
        "levels of 255 apart",
        "values apart",
    ]
    lines = [
        [r["way"], r["work"], r["milliseconds"], 1e3 / r["milliseconds"]]
        + [written(r["times_as_fast"]) if "times_as_fast" in r else ""]
        + ([r["largest_difference_of_255"], f"{r['share_that_differs']:.2%}"] if r["way"] in apart else ["", ""])
        for r in rows
    ]
    return {
        "machine": machine(torch.device("cpu")),
        "torch": torch.__version__,
        "settings": vars(options),
        "rows": rows,
        "table": tabulate(lines, headers, tablefmt="github", floatfmt=".1f"),
    }


def differences(way: Callable, originals: Callable, paths: list[str]) -> tuple[float, float]:
    """The largest difference in levels of 255, and the share of the values that differ."""
    levels = 255 * torch.tensor(CLIP_PIXELS.std).view(3, 1, 1)
    largest = changed = count = 0
    for path in paths:
        for ours, theirs in zip(way(path), originals(path), strict=True):
            off = (normalized(ours, CLIP_PIXELS) - theirs).mul(levels).abs().round()
            largest = max(largest, float(off.max()))
            changed, count = changed + int(off.count_nonzero()), count + off.numel()
    return largest, changed / count


if __name__ == "__main__":
    main()
