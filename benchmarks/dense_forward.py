"""Dense features of one image against the published code: interleaved timing, peak memory, and equal results.

python -m benchmarks.dense_forward --encoder EVA02-B-16 --size 1024
"""

import argparse
import json
import statistics
import sys

import torch
from tabulate import tabulate

from benchmarks.distillation_step import Way
from benchmarks.measure import apart, in_turns, machine, matmul_peak, peak_gib, peak_resident_kib, ratio, write, written
from benchmarks.reference import Attention, dense
from denserc.construction import Construction, DenseEncoder
from denserc.construction.cost import count_multiply_accumulates
from denserc.encoders import build_clip
from denserc.engine import resolve_device


def built(options: argparse.Namespace, device: torch.device):
    """Build an encoder with random weights and distinct gates, and an image."""
    torch.manual_seed(0)
    tower = build_clip(options.encoder, random_init=True).image
    encoder = DenseEncoder(tower, Construction.named(options.construction)).to(device).eval()
    if encoder.gates is not None:
        for projection in encoder.gates.projections:
            torch.nn.init.normal_(projection.weight, std=0.02)
    return encoder, torch.randn(1, 3, options.size, options.size, device=device)


def run(encoder: DenseEncoder, images: torch.Tensor, way: Way, autocast: bool) -> torch.Tensor:
    """One forward."""
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
        return encoder(images) if way is Way.OURS else dense(encoder, images, Attention(way.value))


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="EVA02-B-16")
    parser.add_argument("--construction", default="denserc", help="denserc or clipself")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="all ways under autocast")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    if options.quick:
        options.encoder, options.size = "DenseRC-Miniature", 128
    device = resolve_device(options.device)
    encoder, images = built(options, device)
    if options.memory_of:
        before = 0 if device.type == "cuda" else peak_resident_kib()
        run(encoder, images, Way(options.memory_of), options.bf16)
        print(json.dumps({"peak_gib": peak_gib(device, before)}))
        return {}

    outputs = {way: run(encoder, images, way, options.bf16) for way in Way}
    scale = outputs[Way.OURS].abs().max()
    report = {"machine": machine(device), "torch": torch.__version__, "settings": vars(options), "rows": []}
    seconds = in_turns(
        {way.value: lambda way=way: run(encoder, images, way, options.bf16) for way in Way},
        repeats=options.repeats,
        warmup=0,  # the outputs above
        device=device,
    )
    giga = count_multiply_accumulates(encoder, (options.size, options.size))["total"] / 1e9
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    peak = matmul_peak(device, dtype, encoder.width, images.shape[-1] ** 2 // encoder.patch_size**2) / 1e9
    for way in Way:
        memory = apart("benchmarks.dense_forward", [*given, "--memory-of", way.value])
        report["rows"].append(
            {
                "way": way.value,
                "seconds": statistics.median(seconds[way.value]),
                "peak_gib": memory.get("peak_gib"),
                "over_ours": ratio(seconds[way.value], seconds[Way.OURS.value]),
                "largest_difference": float((outputs[way] - outputs[Way.OURS]).abs().max() / scale),
            }
        )
    report["share_of_peak"] = giga / report["rows"][0]["seconds"] / peak
    lines = [
        [r["way"], r["seconds"], r["peak_gib"], written(r["over_ours"]), f"{r['largest_difference']:.1e}"]
        for r in report["rows"]
    ]
    headers = [
        "way",
        "s a forward",
        "GiB above the model",
        "time over ours",
        "largest difference, relative",
    ]
    report["table"] = tabulate(lines, headers, tablefmt="github", floatfmt=".2f", disable_numparse=[4])
    print(f"{options.encoder} at {options.size}, {options.construction}, {report['machine']}")
    print(report["table"])
    note = f"{giga:.1f} G multiply-accumulates, {report['share_of_peak']:.0%} of the measured matrix-product peak."
    report["notes"] = [f"{options.encoder} at {options.size}, {options.construction}: {note}"]
    print(note)
    write("dense_forward", report)
    return report


if __name__ == "__main__":
    main()
