"""Whole inference of one picture by CAT-Seg: processor time, peak memory and labels, against CAT-Seg's own way.

    python -m benchmarks.segmentation_inference                         # ViT-B/16, 20, 150 and 847 classes
    python -m benchmarks.segmentation_inference --classes 20 --rounds 3 --warmup 1
    python -m benchmarks.segmentation_inference --config-file configs/catseg_vitb16.yaml

From a picture of 640 x 854 to a label map of 512 x 683: four windows and the whole picture. Random weights and drawn
text embeddings, made before in both ways; the alternative is `reference_catseg`. Every measurement is a process of its
own, interleaved. The clock is processor time of one thread, so that what else runs on the machine hardly counts.
Peak memory is that above the built model. Labels must be equal but for near ties, and one window's logits to 1e-4, else
it ends with an error.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tabulate import tabulate
from torch import nn

from benchmarks.drawn_segmenter import (
    MINIATURE,
    OPENAI_VITB16,
    class_names,
    configuration,
    drawn_picture,
    drawn_segmenter,
)
from benchmarks.measure import apart, machine, peak_gib, peak_resident_kib, ratio, wait, write, written
from benchmarks.reference_catseg import ReferenceCATSeg
from denserc.engine import resolve_device
from denserc.structures import DenseRCError

OURS, THEIRS = WAYS = "ours", "CAT-Seg"
TIE = 1e-5  # difference of two probabilities that rounding may reverse


def differing(labels: torch.Tensor, other: torch.Tensor, scores: torch.Tensor, theirs: torch.Tensor) -> int:
    """Number of pixels with two labels, whose probabilities tie.

    Args:
        labels, other: (h, w) as found in two ways.
        scores, theirs: (h, w) probabilities of these labels.

    Raises:
        AssertionError: Labels differ where their probabilities do by more than TIE.
    """
    apart_by = float((scores - theirs).abs().max())
    assert apart_by <= TIE, f"labels differ: the best probabilities are {apart_by:.1e} apart"
    return int((labels != other).sum())


def measure(options: argparse.Namespace, classes: int, way: str, file: Path, device: torch.device) -> dict[str, float]:
    """Seconds and peak memory in this process; the labels, their probabilities and a window's logits go to a file."""
    size, result = ((90, 120), (60, 80)) if options.quick else ((640, 854), (512, 683))
    picture = drawn_picture(size, result, classes)
    cfg = configuration(options.config_file, device, *(MINIATURE if options.quick else []))
    model = drawn_segmenter(cfg, class_names(classes))
    network: nn.Module = model if way == OURS else ReferenceCATSeg(model)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    before = 0 if device.type == "cuda" else peak_resident_kib()
    with torch.no_grad():
        for _ in range(options.warmup + 1):
            start = clock()
            (found,) = network([picture])
            wait(device)
            seconds = clock() - start
        memory = peak_gib(device, before)
        generator = torch.Generator().manual_seed(0)
        window = torch.randn(1, 3, *model.input_size, generator=generator).to(device)
        logits = network.logits(window, model.classes.require())
    tensors = {"labels": found["sem_seg"], "scores": found["scores"], "logits": logits}
    save_file({name: one.contiguous().cpu() for name, one in tensors.items()}, file)
    return {"seconds": seconds, "peak_gib": memory}


def compare(options: argparse.Namespace, given: list[str], classes: int, folder: Path) -> list[dict]:
    """A row per way.

    Raises:
        DenseRCError: A process has failed.
    """
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, results in runs.items():
            only = ["--only", str(classes), way, str(folder / f"{way}.safetensors")]
            results.append(apart("benchmarks.segmentation_inference", [*given, *only]))
            print(f"{classes} classes, {way}: {results[-1]}", file=sys.stderr, flush=True)
            if "error" in results[-1]:
                raise DenseRCError(f"{classes} classes, {way}: {results[-1]['error']}")
    found = {way: load_file(folder / f"{way}.safetensors") for way in WAYS}
    logits = float((found[OURS]["logits"] - found[THEIRS]["logits"]).abs().max())
    assert logits <= 1e-4, f"logits differ by {logits:.1e}"
    pixels = differing(*(found[way][name] for name in ("labels", "scores") for way in WAYS))
    columns = {way: {key: [one[key] for one in results] for key in results[0]} for way, results in runs.items()}
    return [
        {
            "classes": classes,
            "way": way,
            **{key: statistics.median(values) for key, values in columns[way].items()},
            "seconds_over_ours": ratio(columns[way]["seconds"], columns[OURS]["seconds"]),
            "peak_gib_over_ours": ratio(columns[way]["peak_gib"], columns[OURS]["peak_gib"]),
            "pixels_apart": pixels,
            "labels_found": len(found[way]["labels"].unique()),
            "logits_apart": logits,
        }
        for way in WAYS
    ]


def table(rows: list[dict]) -> str:
    """One line per number of classes and way."""
    lines = []
    for row in rows:
        times, memory = (written(row[key]) for key in ("seconds_over_ours", "peak_gib_over_ours"))
        line = [row["classes"], row["way"], row["seconds"], row["peak_gib"], times, memory]
        lines.append([*line, row["pixels_apart"], f"{row['logits_apart']:.0e}"])
    headers = ["classes", "way", "s per picture", "GiB above the model", "time over ours", "memory over ours"]
    headers += ["pixels apart", "logits apart"]
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f", disable_numparse=[4, 5, 7])


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=OPENAI_VITB16)
    parser.add_argument("--classes", type=int, nargs="+", default=None, help="numbers of classes: 20 150 847")
    parser.add_argument("--rounds", type=int, default=1, help="turns of both ways, a fresh process each")
    parser.add_argument("--warmup", type=int, default=0, help="pictures before the one measured (a GPU needs some)")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    parser.add_argument("--only", nargs=3, metavar=("CLASSES", "WAY", "FILE"), help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    options.classes = options.classes or ([5, 30] if options.quick else [20, 150, 847])
    device = resolve_device(options.device)
    if options.only is not None:
        if device.type == "cpu":
            torch.set_num_threads(1)
        classes, way, file = options.only
        print(json.dumps(measure(options, int(classes), way, Path(file), device)))
        return {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for classes in options.classes:
            rows += compare(options, given, classes, Path(folder))
            print(table(rows[-2:]), flush=True)
    report = {"machine": machine(device), "torch": torch.__version__, "settings": vars(options), "rows": rows}
    report["table"] = table(rows)
    clock = "processor time of one thread, in fresh processes" if device.type == "cpu" else "in fresh processes"
    report["notes"] = [f"{options.config_file}, a picture of 640 x 854 in five views; {clock}."]
    write("segmentation_inference", report)
    return report


if __name__ == "__main__":
    main()
