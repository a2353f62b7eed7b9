"""Growth of a distillation step's time and memory with the input, the batch and the number of crops, with plots.

    python -m benchmarks.growth --sizes 512 768 1024 1280 1536 --batches 1 2 4 --crops 4 12 20 36

Both DenseRC and the reference are measured (see `--ways`). A point that does not fit into the available memory is left
out, with a message. The reference's memory gives the largest input that it fits in 24 GiB.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from tabulate import tabulate

from benchmarks import distillation_step
from benchmarks.distillation_step import Way
from benchmarks.measure import FOLDER, apart, machine, write
from denserc.engine import free_bytes, resolve_device
from denserc.structures import choose

HEADS, DEPTH, PATCH = 12, 12, 16  # of a B/16, for the estimate of what fits
AXES = {"size": "side of the student's input", "images": "images in one forward", "regions": "teacher's crops an image"}
MEASURED = {"seconds": "seconds a step", "peak_gib": "peak GiB"}
FIXED = {"size": "pixels", "images": "image(s)", "regions": "crops"}
NAMES = {Way.OURS: "DenseRC", Way.FUSED: "reference, fused attention", Way.EXPLICIT: "reference, attention matrices"}


def matrices_gib(size: int, images: int) -> float:
    """GiB of the attention matrices of a B/16 student in training, float32."""
    return images * DEPTH * HEADS * (size / PATCH) ** 4 * 4 / 2**30


def largest_in(points: list[dict], gib: float) -> int | None:
    """The largest input side within a memory: a + b N + c N^2 through three or more measured points of N tokens."""
    if len({p["size"] for p in points}) < 3:
        return None
    tokens = np.array([(p["size"] / PATCH) ** 2 for p in points])
    fit = np.polynomial.Polynomial.fit(tokens, [p["peak_gib"] for p in points], 2)
    sides = [side for side in range(PATCH, 4096, PATCH) if fit((side / PATCH) ** 2) <= gib]
    return max(sides) if sides and fit.convert().coef[-1] > 0 else None


def plot(points: dict[str, list[dict]], file: Path) -> None:
    """Seconds and memory, a row for each axis, a line for each way."""
    matplotlib.use("Agg")
    figure, rows = plt.subplots(len(points), 2, figsize=(9, 3 * len(points)), layout="constrained")
    for panels, (axis, some) in zip(rows, points.items(), strict=True):
        fixed = ", ".join(f"{some[0][other]} {name}" for other, name in FIXED.items() if other != axis)
        for panel, (key, label) in zip(panels, MEASURED.items(), strict=True):
            measured = [p for p in some if key in p]
            for way in {p["way"]: None for p in measured}:
                own = [p for p in measured if p["way"] == way]
                panel.plot([p[axis] for p in own], [p[key] for p in own], marker="o", label=NAMES[Way(way)])
            panel.set(xlabel=f"{AXES[axis]} ({fixed})", xticks=sorted({p[axis] for p in measured}))
            panel.set(ylabel=label, ylim=(0, 1.1 * max(p[key] for p in measured)))
    rows[0, 0].legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 768])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--crops", type=int, nargs="+", default=[4, 36])
    parser.add_argument("--base", type=int, default=256, help="the input side where batch and crops vary")
    parser.add_argument("--ways", nargs="+", default=["ours", "explicit"])
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.quick:
        options.sizes, options.batches, options.crops, options.base = [32, 64], [2], [4], 32
    device = resolve_device(options.device)
    ways = [choose(Way, way, "--ways") for way in options.ways]
    base = {"size": options.base, "images": 1, "regions": options.crops[0]}
    values = {"size": options.sizes, "images": options.batches, "regions": options.crops}
    points, known = {axis: [] for axis in values}, {}
    for axis in points:
        for value in values[axis]:
            for way in ways:
                key = tuple({**base, axis: value}.values()) + (way,)
                if key not in known:  # the axes cross
                    known[key] = measured({**base, axis: value}, way, options, device)
                    print(known[key], file=sys.stderr)
                points[axis].append(known[key])
    plot(points, FOLDER / "growth.png")
    explicit = [p for p in points["size"] if p["way"] == Way.EXPLICIT.value and "peak_gib" in p]
    flat = list(known.values())
    columns = ["size", "images", "regions", "way", "seconds", "peak_gib", "note"]
    report = {
        "machine": machine(device),
        "torch": torch.__version__,
        "settings": vars(options),
        "points": points,
        "largest_explicit_in_24_gib": largest_in(explicit, 24.0),
        "table": tabulate([[p.get(c) for c in columns] for p in flat], columns, tablefmt="github", floatfmt=".2f"),
    }
    print(report["table"])
    largest = report["largest_explicit_in_24_gib"] or "not determined"
    report["notes"] = [f"Largest input of the explicit reference in 24 GiB, by its growth: {largest}."]
    print(report["notes"][0])
    write("growth", report)
    return report


def measured(where: dict[str, int], way: Way, options: argparse.Namespace, device: torch.device) -> dict:
    """One point, in a process of its own."""
    point = {**where, "way": way.value}
    free = free_bytes(device)
    free_gib = float("inf") if free is None else free / 2**30
    if way is Way.EXPLICIT and 1.5 * matrices_gib(where["size"], where["images"]) > free_gib:
        return point | {"note": f"its attention alone takes {matrices_gib(where['size'], where['images']):.0f} GiB"}
    given = [*(distillation_step.QUICK if options.quick else []), "--device", options.device, "--no-count"]
    given += ["--precision", options.precision, "--warmup", str(options.warmup)]
    given += ["--images", str(where["images"]), "--regions", str(where["regions"])]
    result = apart("benchmarks.distillation_step", [*given, "--steps", "1", "--only", str(where["size"]), way.value])
    return point | ({"note": result["error"]} if "error" in result else result)


if __name__ == "__main__":
    main()
