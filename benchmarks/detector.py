"""A whole detector's inference against MMDetection F-ViT: seconds per image by part, and equal detections.

    python -m benchmarks.detector                                       # B/16 at 640, L/14 at 896
    python -m benchmarks.detector --config-file configs/ovcoco_vitb16.yaml --size 1024 --repeats 5

Random weights whose statistics fit (`drawn_detector`), 65 classes. The reference is `reference_detector`. Detections
must be the same (order, labels, scores within 1e-4, boxes within 2e-3 pixels), else it ends with an error.
"""

import argparse
import statistics
import sys
from functools import partial

import torch
from detectron2.structures import Instances
from tabulate import tabulate

from benchmarks.distillation_step import Way
from benchmarks.drawn_detector import VITB16, VITL14, configuration, drawn_detector, drawn_inputs, report_detectors
from benchmarks.measure import Stopwatch, in_turns, ratio, written
from benchmarks.reference import Attention
from benchmarks.reference_detector import ReferenceDetector
from denserc.detection import FViT
from denserc.structures import choose

OURS = {
    "ViT": ("backbone", "_encode"),
    "proposals": ("proposal_generator", "forward"),
    "second stage": ("roi_heads", "score_boxes"),
    "suppression": ("roi_heads", "select"),
}
THEIRS = {"ViT": "encode", "proposals": "propose", "second stage": "score", "suppression": "select"}
REST = "pyramid and the rest"


def stages(model: FViT | ReferenceDetector) -> dict[str, tuple[object, str]]:
    """The methods whose time is shown apart; the pyramid is what remains."""
    if isinstance(model, ReferenceDetector):
        return {name: (model, method) for name, method in THEIRS.items()}
    return {name: (getattr(model, part), method) for name, (part, method) in OURS.items()}


def difference(ours: Instances, theirs: Instances, *, score: float = 1e-4, box: float = 2e-3) -> dict[str, float]:
    """The largest differences of one image's detections found in two ways.

    Args:
        score, box: The largest allowed, boxes in pixels. Detections whose scores are that close may have swapped.

    Raises:
        AssertionError: A detection of one has no counterpart of the same label in the other, or the order differs.
    """
    assert len(ours) == len(theirs) > 0, f"{len(ours)} and {len(theirs)} detections"
    in_order = (ours.scores - theirs.scores).abs().max()
    scores = (ours.scores[:, None] - theirs.scores).abs()
    boxes = (ours.pred_boxes.tensor[:, None] - theirs.pred_boxes.tensor).abs().amax(dim=2)
    same = (ours.pred_classes[:, None] == theirs.pred_classes) & (scores <= score) & (boxes <= box)
    matched = same.any(dim=0) & same.any(dim=1)
    assert in_order <= score and matched.all(), f"{int(matched.sum())} of {len(ours)} detections are the same"
    return {"score": float(in_order), "box": float(boxes.where(same, box).amin(dim=1).max())}


def compare(file: str, options: argparse.Namespace, device: torch.device) -> dict:
    """One configuration, with one row per variant."""
    cfg = configuration(file, device, size=options.size, bf16=options.bf16)
    model = drawn_detector(cfg)
    side, repeats = cfg.INPUT.SIZE, options.repeats or (1 if file == VITL14 else 2)
    settle = min(1, repeats - 1)
    inputs = drawn_inputs(options.images, side, seed=0)
    ways = [choose(Way, way, "--ways") for way in options.ways]
    models = {way: model if way is Way.OURS else ReferenceDetector(model, Attention(way.value)).eval() for way in ways}
    watches = {way: Stopwatch(stages(one), device) for way, one in models.items()}
    found: dict[Way, list[dict]] = {}

    def detect(way: Way) -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=options.bf16), watches[way]:
            found[way] = models[way](inputs)

    calls = {way: partial(detect, way) for way in ways}
    seconds = in_turns(calls, repeats=repeats, warmup=0, settle=settle, device=device)
    result = {"encoder": cfg.MODEL.ENCODER.NAME, "size": side, "rows": []}
    for way in ways:
        pairs = [] if options.bf16 else zip(found[Way.OURS], found[way], strict=True)
        apart = [difference(one["instances"], other["instances"]) for one, other in pairs]
        parts = watches[way].mean(settle)
        result["rows"].append(
            {
                "way": way.value,
                "seconds": statistics.median(seconds[way]),
                "over_ours": ratio(seconds[way], seconds[Way.OURS]),
                "parts": {**parts, REST: statistics.mean(seconds[way]) - sum(parts.values())},
                "detections": sum(len(one["instances"]) for one in found[way]),
                "largest_difference": {name: max(one[name] for one in apart) for name in apart[0]} if apart else None,
            }
        )
    return result


def table(reports: list[dict]) -> str:
    """One line per encoder and variant."""
    lines = []
    for report in reports:
        for row in report["rows"]:
            shares = [f"{row['parts'][name]:.2f}" for name in (*THEIRS, REST)]
            lines.append([report["encoder"], report["size"], row["way"], row["seconds"], *shares])
            lines[-1].append(written(row["over_ours"]))
    headers = ["encoder", "size", "way", "s", *THEIRS, REST, "time over ours"]
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f")


_REPEATS = "rounds; of several, each detects twice in its turn, and the second counts; 0: one for L/14, else 2"


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", nargs="+", default=[VITB16, VITL14])
    parser.add_argument("--size", type=int, default=0, help="INPUT.SIZE; 0: the configuration's")
    parser.add_argument("--images", type=int, default=1, help="in one forward")
    parser.add_argument("--ways", nargs="+", default=None, help="ours, fused, explicit; on a GPU ours and fused")
    parser.add_argument("--repeats", type=int, default=0, help=_REPEATS)
    parser.add_argument("--bf16", action="store_true", help="all ways; detections are then not compared one by one")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    return report_detectors("detector", options, Way, compare, table)


if __name__ == "__main__":
    main()
