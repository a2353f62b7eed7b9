"""Scoring detections of the real sets' sizes: DenseRC against the LVIS API, pycocotools and faster-coco-eval.

    python -m benchmarks.evaluation_scale --sets coco_val lvis_val --share 0.1 --peers reference
    python -m benchmarks.evaluation_scale --sets objects365_v2_val --peers none

Each measurement is a fresh process that reads the annotation file and the results file (both drawn, see
generated_sets) and ends with the figures. Variants are interleaved, and their figures must agree to 1e-9. The LVIS API
compares every class of every image, so its time grows with the number of images as ours does: a share of the images
gives the ratio.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.generated_sets import SETS, write_set
from benchmarks.measure import apart, machine, peak_gib, peak_resident_kib, ratio, write, written

MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
PEERS = ("reference", "faster_coco_eval")


def ours(folder: Path, federated: bool, shape: str) -> list[float]:
    """As `denserc eval` does."""
    from denserc.evaluation.detection.prediction_files import read_predictions
    from denserc.evaluation.scoring.average_precision import Shape, score_detections
    from denserc.structures.files import read_annotation_file

    truth = read_annotation_file(folder / "truth.json")
    scores = score_detections(
        truth,
        read_predictions(folder / "results.json"),
        category_ids=[category["id"] for category in truth["categories"]],
        shape=Shape(shape),
        max_dets=300 if federated else 100,
        federated=federated,
    )
    return [scores.mean(measure) for measure in MEASURES]


def reference(folder: Path, federated: bool, shape: str) -> list[float]:
    """The LVIS API or pycocotools, as their manuals use them."""
    if federated:
        np.float = float  # the lvis package predates NumPy 2
        from lvis import LVISEval

        evaluation = LVISEval(str(folder / "truth.json"), str(folder / "results.json"), shape)
        evaluation.run()
        return [100 * evaluation.get_results()[measure] for measure in MEASURES]
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), shape)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [100 * float(value) for value in evaluation.stats[:6]]


def faster_coco_eval(folder: Path, federated: bool, shape: str) -> list[float]:
    """As its manual uses it."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(str(folder / "truth.json"))
    found = truth.loadRes(str(folder / "results.json"))
    evaluation = COCOeval_faster(truth, found, shape, lvis_style=federated)
    if federated:
        evaluation.params.maxDets = [300]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # (T, R, C, A)
    views = [precision[..., 0], precision[:1, ..., 0], precision[5:6, ..., 0], *(precision[..., a] for a in (1, 2, 3))]
    return [100 * float(view[view > -1].mean()) for view in views]


WAYS = {"denserc": ours, "reference": reference, "faster_coco_eval": faster_coco_eval}


def measure(way: str, folder: Path, federated: bool, shape: str) -> dict:
    """One way in this process: seconds on the clock and of the processor, GiB, figures."""
    torch.set_num_threads(1)
    before, start, own = peak_resident_kib(), time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        figures = WAYS[way](folder, federated, shape)
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - own,
        "peak_gib": peak_gib(torch.device("cpu"), 0),
        "imports_gib": before / 2**20,
        "figures": figures,
    }


def compare(name: str, folder: Path, options: argparse.Namespace) -> list[dict]:
    """Time all variants on one set, interleaved; one row per variant."""
    size = SETS[name]
    write_set(folder, size, share=options.share, masks=options.shape == "segm")
    ways = ["denserc", *(peer for peer in options.peers if peer != "none")]
    given = ["--only", "", "--folder", str(folder), "--shape", options.shape]
    given += ["--federated"] if size.federated else []
    runs = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way in ways:
            runs[way].append(apart("benchmarks.evaluation_scale", [given[0], way, *given[2:]]))
    rows = []
    for way in ways:
        row = {"set": name, "images": round(size.images * options.share), "classes": size.classes, "way": way}
        errors = [run["error"] for run in runs[way] if "error" in run]
        if errors:
            rows.append({**row, "error": errors[0]})
            continue
        row |= {key: min(run[key] for run in runs[way]) for key in ("seconds", "processor_seconds")}
        row["peak_gib"] = max(run["peak_gib"] for run in runs[way])
        row["figures"] = runs[way][0]["figures"]
        if way != "denserc" and "error" not in runs["denserc"][0]:
            for key, label in (("seconds", "ratio"), ("processor_seconds", "processor_ratio")):
                row[label] = ratio([run[key] for run in runs[way]], [run[key] for run in runs["denserc"]])
            row["largest_difference"] = float(np.abs(np.subtract(row["figures"], runs["denserc"][0]["figures"])).max())
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["coco_val", "lvis_val"], choices=sorted(SETS))
    parser.add_argument("--share", type=float, default=0.05, help="share of each set's images (0.05)")
    parser.add_argument("--shape", default="bbox", choices=["bbox", "segm"], help="boxes or masks")
    parser.add_argument("--peers", nargs="+", default=["reference"], choices=[*PEERS, "none"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="1 %% of the images, once")
    parser.add_argument("--name", default="evaluation_scale", help="name of the JSON below output/benchmarks")
    parser.add_argument("--only", choices=sorted(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--federated", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.only:
        print(json.dumps(measure(options.only, Path(options.folder), options.federated, options.shape)))
        return {}
    if options.quick:
        options.share, options.repeats = 0.01, 1
    rows = []
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(name, Path(folder), options)
    lines = [
        [row["set"], row["images"], row["classes"], row["way"], row.get("seconds"), row.get("processor_seconds")]
        + [row.get("peak_gib"), *(written(row[k]) if k in row else "" for k in ("ratio", "processor_ratio"))]
        + [f"{row['largest_difference']:.0e}" if "largest_difference" in row else row.get("error", "")]
        for row in rows
    ]
    headers = ["set", "images", "classes", "way", "s", "processor s", "peak GiB"]
    headers += ["times ours, s", "times ours, processor", "largest difference"]
    table = tabulate(lines, headers, tablefmt="github", floatfmt=".2f", disable_numparse=[9])
    print(table)
    settings = {key: value for key, value in vars(options).items() if key not in ("only", "folder", "federated")}
    report = {"machine": machine(torch.device("cpu")), "torch": torch.__version__, "settings": settings}
    report |= {"rows": rows, "table": table}
    write(options.name, report)
    return report


if __name__ == "__main__":
    main()
