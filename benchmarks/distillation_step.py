"""Seconds and peak memory of one distillation step, by encoder and input size, on this machine.

    python benchmarks/distillation_step.py --encoder EVA02-B-16 --sizes 512 768 1024 --precision bf16 --checkpointing

Every measurement is a process of its own that builds the training as projects/Distillation/train_net.py does, with
random weights and a drawn batch of the largest number of regions, and steps. Memory: on a GPU what PyTorch allocated at
most; on a CPU the process's largest resident size (Linux) above that after the imports, which says nothing about a GPU.
"""

import argparse
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from detectron2.utils.events import EventStorage
from PIL import Image
from tabulate import tabulate

from denserc.config import get_denserc_config
from denserc.construction import build_dense_model
from denserc.distillation.batch import DistillationBatch
from denserc.distillation.build import build_trainer
from denserc.distillation.distiller import Distiller
from denserc.training import resolve_device

REGIONS = 20  # DISTILL.REGIONS.MAX_REGIONS, the most that one image has


def drawn_batch(distiller: Distiller, images: int, size: int, crop: int) -> DistillationBatch:
    """Random pixels, REGIONS regions an image."""

    def pixels(count: int, side: int) -> torch.Tensor:
        return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)

    foundation = None
    if distiller.foundation is not None:
        foundation = pixels(images, size // distiller.student.patch_size * distiller.foundation.patch_size)
    corners = torch.rand(images, REGIONS, 2) * 0.8
    return DistillationBatch(
        images=pixels(images, size),
        foundation_images=foundation,
        crops=pixels(images * REGIONS, crop),
        boxes=tuple(torch.cat([corners, corners + 0.2], dim=-1)),
        extents=torch.ones(images, 2),
    )


def peak_resident_kib() -> int:
    """This process's largest resident size so far. Not ru_maxrss, which a child inherits from a larger parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure(options: argparse.Namespace, size: int) -> dict[str, float]:
    """One step's seconds (median) and the peak memory in GiB, in this process."""
    device = resolve_device(options.device)
    before = 0 if device.type == "cuda" else peak_resident_kib()
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (32, 32)).save(Path(folder) / "image.png")
        cfg = get_denserc_config()
        cfg.merge_from_list(
            ["MODEL.DEVICE", str(device), "MODEL.ENCODER.NAME", options.encoder, "MODEL.ENCODER.RANDOM_INIT", True]
            + ["MODEL.CONSTRUCTION.NAME", options.construction, "DISTILL.FOLDERS", (folder,), "OUTPUT_DIR", folder]
            + ["DISTILL.STUDENT_SIZE", size, "DISTILL.FOUNDATION.NAME", options.foundation]
            + ["DISTILL.FOUNDATION.RANDOM_INIT", True, "DISTILL.PRECISION", options.precision]
            + ["DISTILL.GRADIENT_CHECKPOINTING", options.checkpointing, "DISTILL.CROP_SIZE", options.crop]
            + ["SOLVER.IMS_PER_BATCH", options.images, "SOLVER.MAX_ITER", 1000, "DATALOADER.NUM_WORKERS", 0]
        )
        trainer = build_trainer(cfg, build_dense_model(cfg), device=device, seed=0)
        crop = options.crop or trainer.distiller.teacher.native_size
        trainer.data_loader = itertools.repeat(drawn_batch(trainer.distiller, options.images, size, crop))
        seconds = []
        with EventStorage() as trainer.storage:
            for trainer.iter in range(1 + options.steps):  # the first warms up
                start = time.perf_counter()
                trainer.run_step()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        memory = (peak_resident_kib() - before) / 2**20
    return {"seconds": sorted(seconds[1:])[options.steps // 2], "peak_gib": memory}


def measure_apart(arguments: list[str], size: int) -> dict:
    """`measure` in a fresh process; the last line of its output if it fails, as when memory runs out."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--only", str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"error": lines[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="EVA02-B-16", help="MODEL.ENCODER.NAME")
    parser.add_argument("--construction", default="denserc", help="MODEL.CONSTRUCTION.NAME")
    parser.add_argument("--foundation", default="dinov2_vitb14", help="DISTILL.FOUNDATION.NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 768, 1024], help="the student's input sides")
    parser.add_argument("--crop", type=int, default=0, help="side of the teacher's crops; 0 = the encoder's own")
    parser.add_argument("--images", type=int, default=1, help="images in one forward")
    parser.add_argument("--precision", default="fp32", help="DISTILL.PRECISION")
    parser.add_argument("--checkpointing", action="store_true", help="DISTILL.GRADIENT_CHECKPOINTING")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--steps", type=int, default=3, help="steps to measure after one that warms up")
    parser.add_argument("--output", default="output/benchmarks/distillation_step.json", help="the JSON to write")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if options.only is not None:
        print(json.dumps(measure(options, options.only)))
        return {}
    rows = [{"size": size, **measure_apart(given, size)} for size in options.sizes]
    settings = {name: value for name, value in vars(options).items() if name not in ("only", "output", "sizes")}
    device = resolve_device(options.device)
    report = {"machine": machine(device), "torch": torch.__version__, "settings": settings, "rows": rows}
    print(f"{options.encoder}, {options.images} image(s) of {REGIONS} regions, {report['machine']}")
    table = [[row["size"], row.get("seconds"), row.get("peak_gib"), row.get("error", "")] for row in rows]
    print(tabulate(table, ["size", "s a step", "peak GiB", ""], tablefmt="github", floatfmt=".2f"))
    path = Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return report


if __name__ == "__main__":
    main()
