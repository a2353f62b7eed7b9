"""Cost of softmax, fusion and suppression in the second stage's inference with many classes.

    python -m benchmarks.detection_postprocess --classes 1203 --proposals 1000

Random weights and random unit vectors as text embeddings; fused scores as spread as the settings of OV-LVIS make them
(threshold 1e-4, 300 detections), which is the worst case: with random weights nearly every score passes. The shares
are those of the second stage only; a detector also runs the encoder, the pyramid and the proposals.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from tabulate import tabulate

from benchmarks.measure import in_turns, machine, wait, write
from denserc.config import read_config
from denserc.detection.modeling.backbone import DENSE
from denserc.detection.modeling.classifier import fuse_scores
from denserc.detection.modeling.poolers import align, to_rois
from denserc.detection.modeling.postprocess import select_detections
from denserc.detection.modeling.roi_heads import FViTROIHeads
from denserc.engine import resolve_device
from denserc.structures import TextEmbeddings, Vocabulary


def build_heads(options: argparse.Namespace, device: torch.device) -> FViTROIHeads:
    """The second stage of the configuration with a drawn vocabulary."""
    cfg = read_config(options.config_file)
    cfg.defrost()
    cfg.MODEL.MASK_ON = False
    strides = {f"p{level}": 2**level for level in range(2, 7)}
    shapes = {name: ShapeSpec(channels=cfg.MODEL.FPN.OUT_CHANNELS, stride=stride) for name, stride in strides.items()}
    heads = FViTROIHeads(cfg, {**shapes, DENSE: ShapeSpec(channels=512, stride=16)}).eval().to(device)
    names = [f"class {index}" for index in range(options.classes)]
    vectors = F.normalize(torch.randn(options.classes + 1, 512), dim=1)
    heads.classes.set(Vocabulary(names, novel=names[::4]), TextEmbeddings([*names, "background"], vectors))
    return heads


def parts(heads: FViTROIHeads, options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    """The stages as calls, each with its input prepared."""
    side, count = options.size, options.proposals
    levels = [torch.randn(1, 256, side // stride, side // stride, device=device) for stride in (4, 8, 16, 32)]
    dense = F.normalize(torch.randn(1, 512, side // 16, side // 16, device=device), dim=1)
    corner = torch.rand(count, 2, device=device) * 0.7 * side
    boxes = torch.cat([corner, corner + 8 + torch.rand(count, 2, device=device) * 0.25 * side], dim=1)
    vectors = heads.classes.require()
    pooled = heads.pooler(levels, [boxes])
    features, deltas = heads.box_head(pooled)
    detector, encoder, _ = heads.scores(levels, dense, [boxes])
    exponents = heads.exponents.for_classes(heads.classes.novel)

    def fused() -> torch.Tensor:
        return fuse_scores(detector.softmax(dim=1), encoder.softmax(dim=1), exponents)[:, :-1]

    def encoder_logits() -> torch.Tensor:
        own = align(dense, to_rois([boxes]), stride=heads.dense_stride, resolution=1).flatten(1)
        return heads.encoder_temperature * F.linear(F.normalize(own, dim=1), vectors)

    scores, refined = fused(), heads.coder.decode(boxes, deltas, (side, side))
    return {
        "region features": lambda: heads.pooler(levels, [boxes]),
        "box head": lambda: heads.box_head(pooled),
        "detector's logits": lambda: heads.classifier(features, vectors),
        "encoder's logits": encoder_logits,
        "softmax and fusion": fused,
        "suppression": partial(select_detections, refined, scores, (side, side), heads.rules),
    }


POST = ("softmax and fusion", "suppression")  # what is held against the rest


@torch.no_grad()
def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/ovlvis_vitb16.yaml")
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--proposals", type=int, default=1000)
    parser.add_argument("--size", type=int, default=640, help="side of the input")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--quick", action="store_true", help="once, with 100 proposals")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.quick:
        options.proposals, options.repeats = 100, 1
    device = resolve_device(options.device)
    torch.manual_seed(0)
    heads = build_heads(options, device)
    calls = parts(heads, options, device)
    wait(device)
    seconds = in_turns(calls, repeats=options.repeats, device=device)
    taken = {name: statistics.median(values) for name, values in seconds.items()}
    whole = [sum(turn) for turn in zip(*seconds.values(), strict=True)]
    post = [sum(turn) for turn in zip(*(seconds[name] for name in POST), strict=True)]
    shares = sorted(a / b for a, b in zip(post, whole, strict=True))
    lines = [[name, 1e3 * value, value / sum(taken.values())] for name, value in taken.items()]
    table = tabulate(
        lines, ["part", "ms", "share of the second stage"], tablefmt="github", floatfmt=(".1f", ".1f", ".1%")
    )
    print(f"{options.proposals} proposals, {options.classes} classes, {machine(device)}\n{table}")
    note = f"{' and '.join(POST)}: {statistics.median(shares):.1%} ({shares[0]:.1%} to {shares[-1]:.1%})"
    print(note)
    report = {
        "machine": machine(device),
        "torch": torch.__version__,
        "settings": vars(options),
        "seconds": taken,
        "share": {"median": statistics.median(shares), "min": shares[0], "max": shares[-1]},
        "table": table,
        "notes": [f"{options.proposals} proposals, {options.classes} classes. {note}."],
    }
    write("detection_postprocess", report)
    return report


if __name__ == "__main__":
    main()
