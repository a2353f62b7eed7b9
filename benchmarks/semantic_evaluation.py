"""Scoring label maps of ADE20K's size at 847 classes: DenseRC against Detectron2's evaluator.

    python -m benchmarks.semantic_evaluation --share 0.05

Label maps and predictions are drawn: rectangles of about 20 classes per picture of 512 x 683 pixels, 16-bit TIFF. Both
evaluators receive the label of each pixel; the argmax over 847 scores, which takes far longer, is not timed.
"denserc, on disk" also writes each prediction, so that the evaluation can be resumed. The variants are interleaved in
one process, and their figures must agree to 1e-9.
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.measure import in_turns, machine, ratio, write, written

CLASSES, IGNORED, SIZE, IMAGES = 847, 65535, (512, 683), 2000
FIGURES = ("mIoU", "fwIoU", "mACC", "pACC")
DATA_SET = "benchmark_semantic_evaluation"


class Labels:
    """Labels in place of scores: the `argmax` that Detectron2's evaluator takes."""

    def __init__(self, labels: torch.Tensor):
        self.labels = labels

    def argmax(self, dim: int) -> torch.Tensor:
        """(H, W)."""
        return self.labels


def drawn(draw: np.random.Generator, classes: int) -> np.ndarray:
    """(H, W) uint16 of large rectangles."""
    coarse = draw.integers(0, CLASSES, classes)[draw.integers(0, classes, (16, 20))]
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(SIZE, coarse.shape, strict=True))
    return coarse[np.ix_(rows, columns)].astype(np.uint16)


def write_set(folder: Path, images: int) -> tuple[dict[str, str], list[torch.Tensor]]:
    """Label files by image id, and predictions that agree with them on about half of the pixels."""
    from denserc.data.images.labels import write_labels

    draw, files, predictions = np.random.default_rng(0), {}, []
    for i in range(images):
        truth = drawn(draw, 20)
        predicted = np.where(drawn(draw, 2) % 2 == 0, truth, drawn(draw, 15))
        truth[:20] = IGNORED
        files[str(i)] = str(folder / f"{i}.tif")
        write_labels(files[str(i)], truth)
        predictions.append(torch.from_numpy(predicted.astype(np.int64)))
    return files, predictions


def theirs(files: dict[str, str], predictions: list[torch.Tensor]) -> list[float]:
    """Detectron2's evaluator, with a loader that NumPy 2 accepts."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator
    from PIL import Image

    if DATA_SET not in DatasetCatalog:
        DatasetCatalog.register(DATA_SET, lambda: [{"file_name": i, "sem_seg_file_name": f} for i, f in files.items()])
        MetadataCatalog.get(DATA_SET).set(stuff_classes=[str(i) for i in range(CLASSES)], ignore_label=IGNORED)
    evaluator = SemSegEvaluator(
        DATA_SET, distributed=False, sem_seg_loading_fn=lambda file, dtype: np.array(Image.open(file)).astype(dtype)
    )
    evaluator.reset()
    for image, labels in zip(files, predictions, strict=True):
        evaluator.process([{"file_name": image}], [{"sem_seg": Labels(labels)}])
    return [evaluator.evaluate()["sem_seg"][name] for name in FIGURES]


def ours(files: dict[str, str], predictions: list[torch.Tensor], output: Path | None) -> list[float]:
    """DenseRC's evaluator, in memory or with predictions on disk."""
    from denserc.evaluation import SegmentationEvaluator

    evaluator = SegmentationEvaluator(
        label_files=files,
        names=[str(i) for i in range(CLASSES)],
        ignore_label=IGNORED,
        output_dir=output,
        distributed=False,
    )
    evaluator.reset()
    for image, labels in zip(files, predictions, strict=True):
        evaluator.process([{"image_id": image}], [{"sem_seg": labels}])
    return [evaluator.evaluate()["sem_seg"][name] for name in FIGURES]


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05, help="share of ADE20K's 2,000 pictures (0.05)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="10 pictures, once")
    parser.add_argument("--name", default="semantic_evaluation", help="name of the JSON below output/benchmarks")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    images, repeats = (10, 1) if options.quick else (round(IMAGES * options.share), options.repeats)
    logging.getLogger("detectron2").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        files, predictions = write_set(Path(folder) / "labels", images)
        figures = {}
        ways = {
            "Detectron2": lambda: figures.update(theirs=theirs(files, predictions)),
            "denserc": lambda: figures.update(ours=ours(files, predictions, None)),
            "denserc, on disk": lambda: figures.update(disk=ours(files, predictions, Path(folder) / "out")),
        }
        seconds = in_turns(ways, repeats=repeats, warmup=int(not options.quick), clock=time.process_time)
    difference = max(float(np.abs(np.subtract(figures["theirs"], figures[key])).max()) for key in ("ours", "disk"))
    rows = [
        [name, images, 1000 * min(times) / images, written(ratio(seconds["Detectron2"], times))]
        for name, times in seconds.items()
    ]
    table = tabulate(rows, ["evaluator", "pictures", "processor ms per picture", "times faster"], tablefmt="github",
                     floatfmt=".2f", disable_numparse=[3])  # fmt: skip
    print(table)
    print(f"largest difference of a figure: {difference:.0e}")
    report = {"machine": machine(torch.device("cpu")), "torch": torch.__version__, "table": table}
    report |= {"images": images, "seconds": seconds, "largest_difference": difference, "figures": figures}
    report["notes"] = [f"Largest difference of mIoU, fwIoU, mACC or pACC: {difference:.0e}."]
    write(options.name, report)
    return report


if __name__ == "__main__":
    main()
