"""A step of training CAT-Seg: processor time of the text part and of all, and peak memory, against CAT-Seg's own way.

    python -m benchmarks.segmentation_training                 # ViT-B/16, 171 classes, one picture of 384 x 384
    python -m benchmarks.segmentation_training --images 4 --ways ours full

`ours` keeps everything for the backward pass, `full` computes parts again (MODEL.CATSEG.GRADIENT_CHECKPOINTING), and
`CAT-Seg` is `reference_catseg`. All train the same random weights with the names of COCO-Stuff on a drawn picture; the
first losses must agree (tests/benchmarks compares every gradient). The text part is its forward and backward
pass. Every measurement is a process of its own, interleaved. The clock is processor time of one thread; peak
memory is that above the built trainer.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time

import torch
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn

from benchmarks.drawn_segmenter import MINIATURE, OPENAI_VITB16, configuration, drawn_picture, drawn_segmenter
from benchmarks.measure import apart, machine, peak_gib, peak_resident_kib, ratio, wait, write, written
from benchmarks.reference import plain_optimizer
from benchmarks.reference_catseg import ReferenceCATSeg
from denserc.construction import GradientCheckpointing
from denserc.data.vocabulary.published import vocabulary
from denserc.engine import resolve_device
from denserc.openvocab.engine import build_trainer
from denserc.segmentation.modeling.meta_arch import CATSeg
from denserc.structures import DenseRCError

WAYS = OURS, FULL, THEIRS = "ours", "full", "CAT-Seg"
CHECKPOINTING = {OURS: GradientCheckpointing.NONE, FULL: GradientCheckpointing.FULL}


class Checkpointed(nn.Module):
    """A CATSeg with gradient checkpointing of its own, set before each forward.

    Args:
        model: Shared by several of these.
        kind: Parts that its backward pass recomputes.
    """

    def __init__(self, model: CATSeg, kind: GradientCheckpointing):
        super().__init__()
        self.model = model
        self.kind = kind

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        """Losses."""
        self.model.set_gradient_checkpointing(self.kind)
        return self.model(batch)

    def text(self) -> torch.Tensor:
        """(T, E) unit vectors of the vocabulary, with gradient."""
        self.model.set_gradient_checkpointing(self.kind)
        return self.model.text_features()


def network(model: CATSeg, way: str) -> nn.Module:
    """Module that a trainer calls for its losses; `text` is its text part."""
    if way == THEIRS:
        model.set_gradient_checkpointing(GradientCheckpointing.NONE)
        return ReferenceCATSeg(model)
    return Checkpointed(model, CHECKPOINTING[way])


def measure(options: argparse.Namespace, way: str, device: torch.device, folder: str) -> dict:
    """Seconds of the text part and of a step, peak memory and loss, in this process."""
    changes = ["SOLVER.IMS_PER_BATCH", options.images, "OUTPUT_DIR", folder, *(MINIATURE if options.quick else [])]
    cfg = configuration(options.config_file, device, *changes)
    names = list(vocabulary("coco_stuff").names)[: options.classes]
    model = drawn_segmenter(cfg, names).train()
    size = tuple(cfg.MODEL.CATSEG.INPUT_SIZE)
    batch = [drawn_picture(size, size, len(names), seed) for seed in range(options.images)]
    trainer = build_trainer(cfg, model, seed=0)
    trainer.data_loader = itertools.repeat(batch)
    trainer.model = network(model, way)
    if way == THEIRS:
        plain_optimizer(trainer.optimizer)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    before = 0 if device.type == "cuda" else peak_resident_kib()
    cotangent = torch.randn(len(names), model.encoder.embed_dim, generator=torch.Generator().manual_seed(0)).to(device)
    texts, steps = [], []
    for _ in range(options.warmup + options.steps):
        start = clock()
        trainer.model.text().backward(cotangent)
        wait(device)
        texts.append(clock() - start)
        model.zero_grad()
    with EventStorage() as trainer.storage:
        for trainer.iter in range(options.warmup + options.steps):
            start = clock()
            trainer.run_step()
            wait(device)
            steps.append(clock() - start)
        memory = peak_gib(device, before)
        loss = trainer.storage.history("loss_sem_seg").values()[0][0]
    text, step = (statistics.median(each[options.warmup :]) for each in (texts, steps))
    return {"text": text, "seconds": step, "peak_gib": memory, "loss": loss}


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=OPENAI_VITB16)
    parser.add_argument("--images", type=int, default=1, help="pictures per step")
    parser.add_argument("--classes", type=int, default=171, help="the first of COCO-Stuff's 171")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="ours comes first")
    parser.add_argument("--rounds", type=int, default=1, help="turns of all ways, a fresh process each")
    parser.add_argument("--warmup", type=int, default=0, help="steps before those measured (a GPU needs some)")
    parser.add_argument("--steps", type=int, default=1, help="steps to measure in a process")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    device = resolve_device(options.device)
    if options.only is not None:
        if device.type == "cpu":
            torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options, options.only, device, folder)))
        return {}
    rows = compare(options, given)
    report = {"machine": machine(device), "torch": torch.__version__, "settings": vars(options), "rows": rows}
    report["table"] = table(rows)
    clock = "processor time of one thread, in fresh processes" if device.type == "cpu" else "in fresh processes"
    what = f"{options.config_file}, {options.classes} classes, {options.images} picture(s) of 384 x 384"
    report["notes"] = [f"{what}; {clock}."]
    print(report["table"])
    write("segmentation_training", report)
    return report


def compare(options: argparse.Namespace, given: list[str]) -> list[dict]:
    """A row per way.

    Raises:
        DenseRCError: A process has failed.
        AssertionError: The first losses differ by more than 1e-5 of one.
    """
    runs: dict[str, list[dict]] = {way: [] for way in options.ways}
    for _ in range(options.rounds):
        for way, results in runs.items():
            results.append(apart("benchmarks.segmentation_training", [*given, "--only", way]))
            print(f"{way}: {results[-1]}", file=sys.stderr, flush=True)
            if "error" in results[-1]:
                raise DenseRCError(f"{way}: {results[-1]['error']}")
    columns = {way: {key: [one[key] for one in results] for key in results[0]} for way, results in runs.items()}
    first = columns[options.ways[0]]
    rows = []
    for way, own in columns.items():
        loss, expected = own["loss"][0], first["loss"][0]
        assert abs(loss - expected) <= 1e-5 * abs(expected), f"{way}: first loss {loss}, {expected} expected"
        over = {f"{key}_over_first": ratio(own[key], first[key]) for key in ("text", "seconds", "peak_gib")}
        rows.append({"way": way, **{key: statistics.median(values) for key, values in own.items()}, **over})
    return rows


def table(rows: list[dict]) -> str:
    """One line per way."""
    over = f"over {rows[0]['way']}"
    lines = []
    for row in rows:
        line = [row["way"]]
        for key in ("text", "seconds", "peak_gib"):
            line += [row[key], written(row[f"{key}_over_first"])]
        lines.append([*line, f"{row['loss']:.6f}"])
    headers = ["way", "s of the text part", over, "s a step", over, "GiB above the model", over, "first loss"]
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f", disable_numparse=[2, 4, 6, 7])


if __name__ == "__main__":
    main()
