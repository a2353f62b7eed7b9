"""Weak scaling of both trainings over CPU processes of one thread each: the same images for every process.

    python -m benchmarks.weak_scaling --processes 2

Each measurement is the project's own command under torchrun, on drawn images and random weights. There are three
interleaved variants: one process; N single trainings side by side, which share only the machine; N processes as one
training. The difference between the second and the third is the cost of training together: the part of the gradients'
all-reduce that is not hidden behind the backward pass, and waiting for the slowest process. An all-reduce of the same
number of bytes is also timed by itself. Steps are Detectron2's own figures (metrics.json): the median after three
steps. An image has one region, so that every step is the same work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from tabulate import tabulate

from benchmarks.counts import learning_parameters
from benchmarks.data_path import drawn_images
from benchmarks.generated_sets import SETS, write_set
from benchmarks.measure import machine, ratio, write, written
from denserc.config import read_config

ROOT = Path(__file__).parents[1]
BUCKET_BYTES = 25 * 2**20  # DistributedDataParallel's
IMAGES = 8

# What a full and a quick run train: configuration and KEY VALUE ... on top of it.
_SAME = ["SOLVER.CHECKPOINT_PERIOD", "100000", "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", "0"]
_SAME += ["MODEL.ENCODER.RANDOM_INIT", "True", "MODEL.DEVICE", "cpu"]
_BN = [f"MODEL.{key}" for key in ("FPN.NORM", "ROI_BOX_HEAD.NORM", "ROI_MASK_HEAD.NORM")]
_DISTILL = ["DATASETS.TRAIN", "()", "DISTILL.REGIONS.MAX_REGIONS", "1"]
_DETECT = ["DATASETS.TRAIN", "('drawn_train',)", "MODEL.VOCABULARY.TEMPLATES", "plain"]
_FEWER = ["INPUT.SIZE", "256", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "128"]
FULL = {
    "distillation": (
        "configs/distill/denserc_vitb16.yaml",
        [*_SAME, *_DISTILL, "INPUT.SIZE", "256", "SOLVER.AMP.ENABLED", "False"],
    ),
    "F-ViT's heads": (
        "configs/ovcoco_vitb16.yaml",
        [*_SAME, *_DETECT, *_FEWER, *(part for key in _BN for part in (key, "BN"))],
    ),
}
QUICK = {
    "distillation": ("configs/miniature/distill_denserc.yaml", [*_SAME, *_DISTILL]),
    "F-ViT's heads": ("configs/miniature/fvit.yaml", [*_SAME, *_DETECT]),
}
PROJECT = {"distillation": "Distillation", "F-ViT's heads": "FViT"}


def write_data(folder: Path) -> list[str]:
    """Drawn images with boxes below a folder; KEY VALUE ... by which either training finds them."""
    size = SETS["coco_val"]
    write_set(folder, size, share=IMAGES / size.images)
    truth = json.loads((folder / "truth.json").read_text())
    (folder / "images").mkdir()
    for path, entry in zip(drawn_images(folder / "images", IMAGES), truth["images"], strict=True):
        Path(path).rename(folder / "images" / entry["file_name"])
    names = [category["name"] for category in truth["categories"]]
    files = {"annotations": "truth.json", "images": "images"}
    described = {"name": "drawn", "base": names[:48], "novel": names[48:], "train": files}
    (folder / "drawn.yaml").write_text(yaml.safe_dump(described))
    return ["DISTILL.SOURCES", f"('folder:{folder / 'images'}',)", "DATASETS.REGISTER", f"('{folder / 'drawn.yaml'}',)"]


def start(processes: int, command: list[str]) -> subprocess.Popen:
    """torchrun with a port of its own, on the CPU, one thread a process."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **threads},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Its output; RuntimeError with the last lines where it failed."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("\n".join(output.splitlines()[-15:]))
    return output


def trained(copies: int, processes: int, command: list[str], images: int, steps: int) -> dict[str, float]:
    """Seconds of a step, and those of them spent on data: the slowest of `copies` trainings at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(copy) for copy in range(copies)]
        size = ["SOLVER.IMS_PER_BATCH", str(images * processes), "SOLVER.MAX_ITER", str(steps)]
        started = [start(processes, [*command, *size, "OUTPUT_DIR", str(output)]) for output in outputs]
        for process in started:
            finish(process)
        found = [last_values(output / "metrics.json") for output in outputs]
    slowest = max(found, key=lambda values: values["time"])
    return {"seconds": slowest["time"], "data_seconds": slowest["data_time"]}


def last_values(file: Path) -> dict[str, float]:
    """The last value of each scalar in a metrics.json."""
    values = {}
    for line in file.read_text().splitlines():
        values |= json.loads(line)
    return values


def reduce_alone(size: int, repeats: int = 5) -> None:
    """One of several processes: prints (the first) the median seconds of an all-reduce of `size` bytes, in buckets."""
    dist.init_process_group("gloo")
    buckets = [torch.zeros(min(BUCKET_BYTES, size - at) // 4) for at in range(0, size, BUCKET_BYTES)]
    seconds = []
    for _ in range(repeats + 1):
        dist.barrier()
        start = time.perf_counter()
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            work.wait()
        seconds.append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        print(json.dumps({"seconds": statistics.median(seconds[1:])}))
    dist.destroy_process_group()


def command_of(name: str, config: str, changes: list[str]) -> list[str]:
    """The project's command line, but for the data."""
    return [f"projects/{PROJECT[name]}/train_net.py", "--config-file", config, *changes]


def measure(name: str, options: argparse.Namespace, data: list[str]) -> dict:
    """One training in the three ways."""
    config, changes = (QUICK if options.quick else FULL)[name]
    command = [*command_of(name, config, changes), *data]
    if name == "distillation":
        command += ["SOLVER.SHARDING", options.sharding]
    count, images = options.processes, options.images
    ways = {"alone": (1, 1), "side by side": (count, 1), "together": (1, count)}
    runs = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, (copies, processes) in ways.items():
            runs[way].append(trained(copies, processes, command, images, 3 + options.steps))
            print(f"{name} {way}: {runs[way][-1]}", file=sys.stderr)
    cfg = read_config(ROOT / config, changes)
    cfg.defrost()
    size = 4 * learning_parameters(cfg)
    alone = finish(start(count, ["-m", "benchmarks.weak_scaling", "--reduce", str(size)]))
    seconds = {way: [run["seconds"] for run in found] for way, found in runs.items()}
    joined = [1 - side / both for side, both in zip(seconds["side by side"], seconds["together"], strict=True)]
    return {
        "training": name,
        "processes": count,
        "gradient_bytes": size,
        "sent_bytes": 2 * size * (count - 1) / count,  # by each process, of a ring
        "seconds": {way: statistics.median(values) for way, values in seconds.items()},
        "efficiency": ratio(seconds["alone"], seconds["together"]),
        "efficiency_side_by_side": ratio(seconds["alone"], seconds["side by side"]),
        "share_of_joining": {"median": statistics.median(joined), "min": min(joined), "max": max(joined)},
        "seconds_of_all_reduce_alone": json.loads(alone.splitlines()[-1])["seconds"],
        "loader_seconds_an_image": statistics.median(run["data_seconds"] for run in runs["alone"]) / images,
    }


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="no more than there are cores")
    parser.add_argument("--images", type=int, default=1, help="in one forward of a process")
    parser.add_argument("--steps", type=int, default=3, help="to measure, after three")
    parser.add_argument("--rounds", type=int, default=1, help="turns of the three ways")
    parser.add_argument("--sharding", default="none", help="SOLVER.SHARDING")
    parser.add_argument("--only", nargs="+", choices=sorted(FULL), default=list(FULL))
    parser.add_argument("--quick", action="store_true", help="the miniature, once, to see that it runs")
    parser.add_argument("--reduce", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.reduce is not None:
        reduce_alone(options.reduce)
        return {}
    if options.quick:
        options.rounds, options.steps = 1, 2
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder))
        rows = [measure(name, options, data) for name in options.only]
    report = {
        "machine": f"{machine(torch.device('cpu')).partition(',')[0]}, {os.cpu_count()} cores, 1 thread a process",
        "torch": torch.__version__,
        "settings": {key: value for key, value in vars(options).items() if key != "reduce"},
        "rows": rows,
        "table": table(rows),
    }
    print(f"{options.processes} processes, {options.images} image(s) each, {report['machine']}")
    print(report["table"])
    write("weak_scaling", report)
    return report


def table(rows: list[dict]) -> str:
    """One line a training."""
    lines = [
        [r["training"], r["gradient_bytes"] / 1e6, *r["seconds"].values(), written(r["efficiency"])]
        + [written(r["efficiency_side_by_side"]), f"{r['share_of_joining']['median']:.0%}"]
        + [r["seconds_of_all_reduce_alone"], 1e3 * r["loader_seconds_an_image"]]
        for r in rows
    ]
    headers = ["training", "MB of gradients", "s a step, one process", "side by side", "together", "efficiency"]
    headers += ["of it without joining", "share of joining", "s of a single all-reduce", "ms of data an image"]
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f")


if __name__ == "__main__":
    main()
