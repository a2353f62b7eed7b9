"""One training step of a detector's heads over the frozen ViT: seconds by part, in three variants and with the cache.

    python -m benchmarks.heads_training                                  # B/16 at 640
    python -m benchmarks.heads_training --config-file configs/ovcoco_vitl14.yaml --repeats 1

`ours` computes the frozen maps at every step. `cached` reads them from disk (MODEL.FVIT.CACHE.DIR, a small fixed set
that is cached beforehand). `fused` and `explicit` compute as MMDetection F-ViT does (`reference_detector`). All train
the same weights, interleaved, after a check that they compute the same losses and gradients. Weights are random, and
drawn images are in memory.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from enum import Enum
from functools import partial

import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn

from benchmarks.drawn_detector import VITB16, configuration, drawn_detector, drawn_inputs, report_detectors
from benchmarks.measure import Stopwatch, in_turns, ratio, written
from benchmarks.reference import Attention, plain_optimizer
from benchmarks.reference_detector import ReferenceDetector
from denserc.detection import FViT
from denserc.detection.modeling.feature_cache import CachePrecision, FeatureCache
from denserc.detection.modeling.sampling import RegionSample
from denserc.openvocab.engine import build_trainer
from denserc.openvocab.trainer import OpenVocabularyTrainer
from denserc.structures import choose


class Way(Enum):
    """Implementation of the step."""

    OURS = "ours"
    CACHED = "cached"  # ours, with the frozen maps on disk
    FUSED = "fused"  # the reference with PyTorch's fused attention
    EXPLICIT = "explicit"  # the reference with attention matrices


class WithCache(nn.Module):
    """An FViT that takes its frozen maps from a cache."""

    def __init__(self, model: FViT, cache: FeatureCache):
        super().__init__()
        self.model = model
        self.cache = cache

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        """Compute the losses, with the cache set for this call only."""
        self.model.backbone.cache, self.model.views_alone = self.cache, True
        try:
            return self.model(batch)
        finally:
            self.model.backbone.cache, self.model.views_alone = None, False


def network(model: FViT, way: Way, cache: FeatureCache) -> nn.Module:
    """Module that a trainer calls for its losses."""
    if way is Way.OURS:
        return model
    return WithCache(model, cache) if way is Way.CACHED else ReferenceDetector(model, Attention(way.value))


def frozen(network: nn.Module) -> tuple[object, str]:
    """The method that gives the frozen maps."""
    if isinstance(network, ReferenceDetector):
        return network, "encode"
    return (network.model.backbone, "_view_maps") if isinstance(network, WithCache) else (network.backbone, "_encode")


def gradients(trainer: OpenVocabularyTrainer, model: FViT, batch: list[dict], samples: list) -> dict[str, torch.Tensor]:
    """Losses and gradients of a batch by name; weights and statistics stay.

    Args:
        samples: Training regions that an earlier call has drawn; if empty, they are drawn and stored here. Near ties
            among the proposals may swap, and another region would then be drawn.
    """
    state = {name: value.clone() for name, value in model.state_dict().items() if "running_" in name}
    drawn, draw = list(samples), model.roi_heads.sample

    def sample(proposals: torch.Tensor, truth: Instances) -> RegionSample:
        if samples:
            return drawn.pop(0)
        drawn.append(draw(proposals, truth))
        return drawn[-1]

    torch.manual_seed(0)
    model.zero_grad()
    model.roi_heads.sample = sample
    with EventStorage():
        losses = trainer.losses(batch)
        sum(losses.values()).backward()
    del model.roi_heads.sample
    samples[:] = samples or drawn
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.load_state_dict(state, strict=False)
    return {**{name: loss.detach() for name, loss in losses.items()}, **found}


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference of losses and gradients, relative to the length of each.

    Raises:
        AssertionError: It is above 2%: batch statistics of a drawn detector enlarge rounding.
    """
    assert ours.keys() == theirs.keys()
    total = sum(value.norm() for value in ours.values())
    apart = [float((ours[n] - theirs[n]).norm() / (ours[n].norm() + 1e-5 * total)) for n in ours]
    assert max(apart) <= 0.02, f"losses or gradients differ by {max(apart):.1%}"
    return max(apart)


def compare(file: str, options: argparse.Namespace, device: torch.device, folder: str) -> dict:
    """One configuration's rows."""
    cfg = configuration(file, device, size=options.size, bf16=options.bf16)
    cfg.SOLVER.IMS_PER_BATCH, cfg.OUTPUT_DIR = options.images, folder
    model = drawn_detector(cfg).train()
    inputs = drawn_inputs(options.views, cfg.INPUT.SIZE, seed=0)
    batches = [inputs[i : i + options.images] for i in range(0, len(inputs), options.images)]
    precision = choose(CachePrecision, options.cache_precision, "--cache-precision")
    cache = FeatureCache(folder, limit_gb=100.0, precision=precision, about="", encoder=model.backbone.encoder)
    ways = [choose(Way, way, "--ways") for way in options.ways]
    trainers, watches = {}, {}
    for way in ways:
        trainer = trainers[way] = build_trainer(cfg, model, seed=0)
        trainer.data_loader = itertools.cycle(batches)
        trainer.model = network(model, way, cache)
        if way in (Way.FUSED, Way.EXPLICIT):
            plain_optimizer(trainer.optimizer)
        methods = {VIT: frozen(trainer.model), FORWARD: (trainer, "losses"), UPDATE: (trainer, "_update_weights")}
        watches[way] = Stopwatch(methods, device)
    exact = [way for way in ways if way is not Way.CACHED or precision is CachePrecision.FP32]
    samples = []
    found = {way: gradients(trainers[way], model, batches[0], samples) for way in exact if not options.bf16}
    apart = {way.value: difference(found[Way.OURS], theirs) for way, theirs in found.items()}
    del found
    if Way.CACHED in ways:
        with torch.no_grad(), EventStorage():
            for batch in batches:
                trainers[Way.CACHED].losses(batch)
        cache.hits = cache.misses = 0
    with EventStorage() as storage:

        def step(way: Way) -> None:
            trainers[way].storage, trainers[way].iter = storage, storage.iter
            with watches[way]:
                trainers[way].run_step()

        calls = {way: partial(step, way) for way in ways}
        seconds = in_turns(calls, repeats=options.repeats, warmup=0, settle=1, device=device)
    if Way.CACHED in ways:
        assert cache.misses == 0, "the cache was not warm"
    rows = []
    for way in ways:
        taken = watches[way].mean(settle=1)
        taken[FORWARD] -= taken[VIT]
        taken[BACKWARD] = statistics.mean(seconds[way]) - sum(taken.values())
        rows.append(
            {
                "way": way.value,
                "seconds": statistics.median(seconds[way]),
                "parts": {name: taken[name] for name in PARTS},
                "over_ours": ratio(seconds[way], seconds[Way.OURS]),
                "largest_difference": apart.get(way.value),
            }
        )
    return {"encoder": cfg.MODEL.ENCODER.NAME, "size": cfg.INPUT.SIZE, "rows": rows}


PARTS = VIT, FORWARD, BACKWARD, UPDATE = "frozen maps", "heads forward", "heads backward", "clip and AdamW"


def compare_in_a_folder(file: str, options: argparse.Namespace, device: torch.device) -> dict:
    """`compare` with a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return compare(file, options, device, folder)


def table(reports: list[dict]) -> str:
    """One line per encoder and variant."""
    lines = []
    for report in reports:
        for row in report["rows"]:
            parts = [f"{row['parts'][name]:.2f}" for name in PARTS]
            lines.append([report["encoder"], report["size"], row["way"], row["seconds"], *parts])
            lines[-1].append(written(row["over_ours"]))
    return tabulate(
        lines, ["encoder", "size", "way", "s a step", *PARTS, "time over ours"], tablefmt="github", floatfmt=".2f"
    )


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", nargs="+", default=[VITB16])
    parser.add_argument("--size", type=int, default=0, help="INPUT.SIZE; 0: the configuration's")
    parser.add_argument("--images", type=int, default=1, help="a step")
    parser.add_argument("--views", type=int, default=2, help="number of images in the fixed set")
    parser.add_argument("--ways", nargs="+", default=None, help="ours, cached, fused, explicit (not on a GPU)")
    parser.add_argument("--cache-precision", default="fp32", help="MODEL.FVIT.CACHE.PRECISION: fp32 or fp16")
    parser.add_argument(
        "--repeats", type=int, default=2, help="rounds; in each a way takes two steps, the second counts"
    )
    parser.add_argument("--bf16", action="store_true", help="all ways; gradients are then not compared")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE")
    parser.add_argument("--quick", action="store_true", help="the miniature encoder, to see that it runs")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    return report_detectors("heads_training", options, Way, compare_in_a_folder, table)


if __name__ == "__main__":
    main()
