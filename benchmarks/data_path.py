"""The loader's work on one image, on one core, against the originals' PIL way: processor time and pixels.

    python -m benchmarks.data_path --images DIR

Decode, the student's square, the foundation model's, the teacher's crops. Without a folder, drawn JPEGs of COCO's size.
"""

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from benchmarks.measure import in_turns, machine, ratio, write, written
from benchmarks.reference import pil_views
from denserc.data.image_lists import folder_list
from denserc.data.images import read_rgb
from denserc.data.squares import Resampling
from denserc.distillation.crops import CropTransform, padded_square
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


def our_views(path: str, boxes: torch.Tensor, way: Resampling, options: argparse.Namespace):
    """What the loader makes of one file."""
    pixels = read_rgb(path)
    squares = (padded_square(pixels, side, way) for side in (options.student, options.foundation))
    return *squares, CropTransform(size=options.crop, resampling=way)(pixels, boxes)


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="a folder of images; drawn ones otherwise")
    parser.add_argument("--count", type=int, default=16, help="images of it")
    parser.add_argument("--student", type=int, default=1024)
    parser.add_argument("--foundation", type=int, default=896)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--grid", type=int, default=6, help="rows and columns of regions: 6 x 6 is the most there is")
    parser.add_argument("--repeats", type=int, default=5)
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


def compare(paths: list[str], options: argparse.Namespace) -> dict:
    """Times the ways image by image in turns, and looks at the differences."""
    boxes = grid(options.grid)
    sizes = {"student": options.student, "foundation": options.foundation, "crop": options.crop}
    ways = {way.value: lambda p, way=way: our_views(p, boxes, way, options) for way in Resampling}
    ways["originals"] = lambda p: pil_views(p, boxes, **sizes, pixels=CLIP_PIXELS)
    seconds = {name: [] for name in ways}
    for path in paths:
        calls = {name: partial(way, path) for name, way in ways.items()}
        taken = in_turns(calls, repeats=options.repeats, clock=time.process_time)
        for name, values in taken.items():
            seconds[name].append(statistics.median(values))

    levels = 255 * torch.tensor(CLIP_PIXELS.std).view(3, 1, 1)
    largest, changed = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for path in paths:
        for name in (way.value for way in Resampling):
            for ours, theirs in zip(ways[name](path), ways["originals"](path), strict=True):
                content = (normalized(ours, CLIP_PIXELS) - theirs).mul(levels).abs().round()
                largest[name] = max(largest[name], float(content.max()))
                changed[name] += float((content > 0).float().mean()) / (3 * len(paths))
    rows = []
    for name, values in seconds.items():
        over = ratio(seconds["originals"], values)
        rows.append({"way": name, "milliseconds": 1e3 * statistics.median(values), "times_as_fast": over})
        rows[-1] |= {"largest_difference_of_255": largest[name], "share_that_differs": changed[name]}
    headers = [
        "way",
        "ms an image",
        "images a second",
        "times as fast",
        "most levels of 255 apart",
        "values apart",
    ]
    lines = [
        [r["way"], r["milliseconds"], 1e3 / r["milliseconds"], written(r["times_as_fast"])]
        + [r["largest_difference_of_255"], f"{r['share_that_differs']:.2%}"]
        for r in rows
    ]
    return {
        "machine": machine(torch.device("cpu")),
        "torch": torch.__version__,
        "settings": vars(options),
        "rows": rows,
        "table": tabulate(lines, headers, tablefmt="github", floatfmt=".1f"),
    }


if __name__ == "__main__":
    main()
