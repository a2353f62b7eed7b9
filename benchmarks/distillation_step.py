"""One distillation step against the published code: seconds, peak memory, share of the machine's matrix-product peak.

    python -m benchmarks.distillation_step --encoder EVA02-B-16 --sizes 512 1024 --precision bf16 --checkpointing full

Every measurement is a process of its own that builds the training as projects/Distillation/train_net.py does, with
random weights and a drawn batch. The variants are interleaved, round by round. Memory on a GPU is PyTorch's peak
allocation. On a CPU it is the process's largest resident size (Linux) minus that after the imports, which does not
predict a GPU's. Share of the peak: multiply-accumulates of the step per second, as PyTorch counts them, over those of
the best large product in the same process. The first steps of a process are up to a sixth slower, on a CPU because of
fresh pages; measure the speed of a long training with --warmup 3 --steps 3.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from enum import Enum
from pathlib import Path

import torch
from detectron2.utils.events import EventStorage
from PIL import Image
from tabulate import tabulate

from benchmarks.measure import apart, machine, matmul_peak, peak_gib, peak_resident_kib, ratio, wait, write, written
from benchmarks.reference import Attention, ReferenceDistiller, plain_optimizer
from denserc.config import get_denserc_config
from denserc.construction import build_dense_model
from denserc.construction.cost import flop_counter
from denserc.distillation.build import build_trainer
from denserc.distillation.data.batch import DistillationBatch
from denserc.distillation.distiller import Distiller
from denserc.distillation.trainer import DistillationTrainer
from denserc.engine import resolve_device
from denserc.structures import choose


class Way(Enum):
    """Implementation of the step."""

    OURS = "ours"
    FUSED = "fused"  # the reference with PyTorch's fused attention
    EXPLICIT = "explicit"  # the reference with attention matrices


def drawn_batch(distiller: Distiller, *, images: int, size: int, crop: int, regions: int) -> DistillationBatch:
    """Random pixels, as many regions for each image."""

    def pixels(count: int, side: int) -> torch.Tensor:
        return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)

    foundation = None
    if distiller.foundation is not None:
        foundation = pixels(images, size // distiller.student.patch_size * distiller.foundation.patch_size)
    corners = torch.rand(images, regions, 2) * 0.8
    return DistillationBatch(
        images=pixels(images, size),
        foundation_images=foundation,
        crops=pixels(images * regions, crop),
        boxes=tuple(torch.cat([corners, corners + 0.2], dim=-1)),
        extents=torch.ones(images, 2),
    )


def trainer_of(options: argparse.Namespace, size: int, way: Way, device: torch.device) -> DistillationTrainer:
    """A training on random weights and one drawn batch, over and over."""
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (32, 32)).save(Path(folder) / "image.png")
        cfg = get_denserc_config()
        cfg.merge_from_list(
            ["MODEL.DEVICE", str(device), "MODEL.ENCODER.NAME", options.encoder, "MODEL.ENCODER.RANDOM_INIT", True]
            + ["MODEL.CONSTRUCTION.NAME", options.construction, "OUTPUT_DIR", folder]
            + ["DISTILL.SOURCES", (f"folder:{folder}",)]
            + ["INPUT.SIZE", size, "DISTILL.FOUNDATION.NAME", options.foundation]
            + ["SOLVER.AMP.ENABLED", options.precision != "fp32", "SOLVER.BETAS", (0.9, 0.98), "SOLVER.EPS", 1e-6]
            + (["SOLVER.AMP.PRECISION", options.precision] if options.precision != "fp32" else [])
            + ["DISTILL.GRADIENT_CHECKPOINTING", options.checkpointing if way is Way.OURS else "none"]
            + ["DISTILL.CROP_SIZE", options.crop, "DISTILL.TEACHER.CROPS_PER_FORWARD", options.crops_per_forward]
            + ["SOLVER.IMS_PER_BATCH", options.images, "SOLVER.MAX_ITER", 1000, "DATALOADER.NUM_WORKERS", 0]
        )
        torch.manual_seed(0)
        trainer = build_trainer(cfg, build_dense_model(cfg), device=device, seed=0)
    distiller = trainer.distiller
    crop = options.crop or distiller.teacher.native_size
    batch = drawn_batch(distiller, images=options.images, size=size, crop=crop, regions=options.regions)
    trainer.data_loader = itertools.repeat(batch)
    if way is not Way.OURS:
        trainer.model = ReferenceDistiller(distiller, Attention(way.value))
        plain_optimizer(trainer.optimizer)
    elif options.compile:
        distiller.student.compile()
    return trainer


def measure(options: argparse.Namespace, size: int, way: Way) -> dict:
    """A step's seconds (median, and each), the peak memory in GiB and the share of the peak, in this process."""
    device = resolve_device(options.device)
    before = 0 if device.type == "cuda" else peak_resident_kib()
    trainer = trainer_of(options, size, way, device)
    seconds, count = [], flop_counter()
    with EventStorage() as trainer.storage:
        for trainer.iter in range(options.warmup + options.steps):
            start = time.perf_counter()
            trainer.run_step()
            wait(device)
            seconds.append(time.perf_counter() - start)
        memory = peak_gib(device, before)
        each = seconds[options.warmup :]
        result = {"seconds": statistics.median(each), "each": each, "peak_gib": memory}
        if options.count and way is Way.OURS:
            with count:
                trainer.run_step()
            dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
            tower = trainer.distiller.student.tower
            peak = matmul_peak(device, dtype, tower.width, (size // tower.patch_size) ** 2)
            result["giga_macs"] = count.get_total_flops() / 2e9
            result["peak_giga_macs_per_s"] = peak / 1e9
            least = result["giga_macs"] / result["peak_giga_macs_per_s"]  # seconds
            result |= {"share_of_peak": least / result["seconds"], "share_of_peak_fastest": least / min(each)}
    return result


def parser() -> argparse.ArgumentParser:
    """The options, which `benchmarks.growth` shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="EVA02-B-16", help="MODEL.ENCODER.NAME")
    parser.add_argument("--construction", default="denserc", help="MODEL.CONSTRUCTION.NAME: denserc or clipself")
    parser.add_argument("--foundation", default="dinov2_vitb14", help="DISTILL.FOUNDATION.NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024], help="the student's input sides")
    parser.add_argument("--crop", type=int, default=0, help="side of the teacher's crops; 0 = the encoder's own")
    parser.add_argument("--regions", type=int, default=20, help="regions per image (DISTILL.REGIONS.MAX_REGIONS)")
    parser.add_argument("--crops-per-forward", type=int, default=0, help="DISTILL.TEACHER.CROPS_PER_FORWARD")
    parser.add_argument("--images", type=int, default=1, help="images in one forward")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16 (SOLVER.AMP)")
    parser.add_argument("--checkpointing", default="selective", help="DISTILL.GRADIENT_CHECKPOINTING, only ours")
    parser.add_argument("--compile", action="store_true", help="torch.compile the student, only ours")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--ways", nargs="+", default=["ours", "explicit"], help="ours, fused, explicit")
    parser.add_argument("--rounds", type=int, default=1, help="turns of all ways, a fresh process each")
    parser.add_argument("--warmup", type=int, default=0, help="steps before those measured (a GPU needs some)")
    parser.add_argument("--steps", type=int, default=2, help="steps to measure in a process")
    parser.add_argument("--no-count", dest="count", action="store_false", help="leave the share of the peak out")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    parser.add_argument("--only", nargs=2, metavar=("SIZE", "WAY"), help=argparse.SUPPRESS)
    return parser


QUICK = ["--encoder", "DenseRC-Miniature", "--foundation", "colour_texture_p8", "--crop", "32"]
QUICK += ["--regions", "4", "--rounds", "1"]


def measured(given: list[str], size: int, ways: list[Way], rounds: int) -> dict[Way, list[dict]]:
    """`measure` in fresh processes, the ways in turn."""
    runs = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            result = apart("benchmarks.distillation_step", [*given, "--only", str(size), way.value])
            runs[way].append(result)
            print(f"{size} {way.value}: {result}", file=sys.stderr)
    return runs


def summary(size: int, runs: dict[Way, list[dict]]) -> dict:
    """Medians of the rounds, and how many times ours the others take."""
    row = {
        "size": size,
        "errors": {way.value: r["error"] for way, results in runs.items() for r in results if "error" in r},
    }
    good = {way: results for way, results in runs.items() if way.value not in row["errors"]}
    for way, results in good.items():
        row[way.value] = {key: statistics.median(r[key] for r in results) for key in results[0] if key != "each"}
        row[way.value]["each"] = steps = [second for r in results for second in r["each"]]
        if way is not Way.OURS and Way.OURS in good:
            ours = good[Way.OURS]
            row[way.value]["seconds_over_ours"] = ratio(steps, [second for r in ours for second in r["each"]])
            row[way.value]["peak_gib_over_ours"] = ratio(
                [r["peak_gib"] for r in results], [r["peak_gib"] for r in ours]
            )
    return row


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(given)
    if options.quick:
        given = [*QUICK, *given]
        options = parser().parse_args(given)
        options.sizes = [64] if "--sizes" not in given else options.sizes
    ways = [choose(Way, way, "--ways") for way in options.ways]
    if options.only is not None:
        print(json.dumps(measure(options, int(options.only[0]), Way(options.only[1]))))
        return {}
    rows = [summary(size, measured(given, size, ways, options.rounds)) for size in options.sizes]
    settings = {name: value for name, value in vars(options).items() if name not in ("only", "sizes")}
    device = resolve_device(options.device)
    report = {"machine": machine(device), "torch": torch.__version__, "settings": settings, "rows": rows}
    report["table"] = table(rows)
    report["notes"] = [
        f"{options.encoder}, {options.images} image(s) of {options.regions} regions, {options.precision}; ours with "
        f"checkpointing {options.checkpointing}."
    ]
    print(f"{options.encoder}, {options.images} image(s) of {options.regions} regions, {report['machine']}")
    print(report["table"])
    write("distillation_step", report)
    return report


def table(rows: list[dict]) -> str:
    """One line a size and way."""
    lines = []
    for row in rows:
        for way in Way:
            if way.value in row["errors"]:
                lines.append([row["size"], way.value, None, None, None, None, row["errors"][way.value]])
            elif way.value in row:
                cell = row[way.value]
                times, memory = (
                    written(cell[k]) if k in cell else "" for k in ("seconds_over_ours", "peak_gib_over_ours")
                )
                share = ""
                if "share_of_peak" in cell:
                    share = f"{cell['share_of_peak']:.0%} of peak (fastest step {cell['share_of_peak_fastest']:.0%})"
                lines.append([row["size"], way.value, cell["seconds"], cell["peak_gib"], times, memory, share])
    headers = ["size", "way", "s a step", "peak GiB", "time over ours", "memory over ours", ""]
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f")


if __name__ == "__main__":
    main()
