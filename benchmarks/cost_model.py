"""Estimated cost of a training on 1, 8, 32, 256 GPUs, and its bottleneck, from three kinds of numbers.

    python -m benchmarks.cost_model --peak 989 --utilisation 0.35      # another GPU
    python -m benchmarks.cost_model --write                            # rewrite the tables of docs/SCALING.md
    python -m benchmarks.cost_model --count                            # count COUNTED again, to compare (a minute)

benchmarks.cost_inputs lists the counted, measured and assumed numbers. A step is modeled as compute, then all-reduce.
Starting, checkpoints, logging and the optimizer's update are not included.
"""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tabulate import tabulate

from benchmarks.cost_inputs import COUNTED, CPU_STEPS, LVIS_CLASSES, MEANING, SCORING, Assumed, Training, trainings
from benchmarks.counts import DetectorCounts, DistillationCounts, detector_counts, distillation_counts
from denserc.config import read_config

PAGE = Path(__file__).parents[1] / "docs" / "SCALING.md"
GPUS = (1, 8, 32, 256)


@dataclass(frozen=True)
class Cost:
    """One training on one number of GPUs; times in seconds, per step unless noted otherwise."""

    gpus: int
    batch: int
    steps: int
    compute: float
    sent: float  # bytes by each GPU
    all_reduce: float
    images_per_second: float  # of one GPU, all-reduce not hidden

    @property
    def hours(self) -> tuple[float, float]:
        """Hours of the whole training: with all-reduce hidden behind compute as far as possible, and not at all."""
        hidden = max(self.compute, self.all_reduce)
        return self.steps * hidden / 3600, self.steps * (self.compute + self.all_reduce) / 3600


def cost(training: Training, gpus: int, assumed: Assumed) -> Cost:
    """The batch is the paper's as long as every GPU has an image, else one image a GPU: see the page."""
    batch = max(training.batch, gpus)
    share = batch / gpus
    compute = assumed.compute_seconds(share * training.macs)
    sent = 2 * training.gradient_bytes * (gpus - 1) / gpus
    reduced = assumed.ring_seconds(sent, gpus)
    steps = math.ceil(training.epochs * training.images / batch)
    return Cost(gpus, batch, steps, compute, sent, reduced, share / (compute + reduced))


def tables(assumed: Assumed) -> dict[str, str]:
    """The page's, by name."""
    return {
        "assumed": _table(
            [[f.name, f"{getattr(assumed, f.name):g}", MEANING[f.name]] for f in fields(Assumed)],
            ["assumed", "value", "what"],
        ),
        "counted": _table(
            [[t.name, t.macs / 1e12, _parts(t), t.counts.learning / 1e6, t.gradient_bytes / 1e6] for t in trainings()],
            ["training", "T MACs an image", "of them", "M parameters learn", "MB of gradients"],
        ),
        "cost": _table([_cost_line(t, n, assumed) for t in trainings() for n in GPUS], _COST_HEADERS),
        "data": _table(
            _data_lines(assumed), ["training", "images a second and GPU", "loader", "ms an image", "cores a GPU"]
        ),
        "evaluation": _table(
            _evaluation_lines(assumed), ["encoder", "GPUs", "inference, s", "scoring, s", "scoring's share"]
        ),
        "memory": _table(_memory_lines(), ["student", "GPUs", "none, GiB", "fsdp, GiB", "more sent a step, MB"]),
        "cpu": _table(
            [
                [side, macs, f"{a} to {b}", f"{1e3 * macs / b:.0f} to {1e3 * macs / a:.0f}"]
                for side, macs, a, b in CPU_STEPS
            ],
            ["B/16 at", "T MACs a step, counted", "s a step, measured", "G MACs a second"],
        ),
    }


_COST_HEADERS = ["training", "GPUs", "batch", "steps", "compute, ms a step", "sent by each, MB", "all-reduce, ms"]
_COST_HEADERS += ["hours, hidden to not", "GPU hours", "rate, sqrt", "rate, linear"]


def _cost_line(training: Training, gpus: int, assumed: Assumed) -> list:
    one = cost(training, gpus, assumed)
    times = one.batch / training.batch
    low, high = one.hours
    return [
        *(training.name, gpus, one.batch, one.steps, f"{1e3 * one.compute:.0f}", f"{one.sent / 1e6:.0f}"),
        *(f"{1e3 * one.all_reduce:.0f}", f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"),
        *(f"{gpus * high:.0f}", f"x {math.sqrt(times):.3g}", f"x {times:.3g}"),
    ]


def _data_lines(assumed: Assumed) -> list[list]:
    lines = []
    for training in trainings():
        needed = cost(training, 1, assumed).images_per_second
        for setting, milliseconds in training.loaders.items():
            cores = needed * milliseconds / 1e3
            lines.append([training.name, f"{needed:.0f}", setting, f"{milliseconds:g}", cores])
    return lines


def _evaluation_lines(assumed: Assumed) -> list[list]:
    images, scoring = SCORING["LVIS val"]
    lines = []
    for training in trainings():
        if isinstance(training.counts, DetectorCounts):
            for gpus in GPUS:
                inference = assumed.compute_seconds(math.ceil(images / gpus) * training.counts.inference)
                share = f"{scoring / (scoring + inference):.0%}"
                lines.append([training.name, gpus, f"{inference:.0f}", f"{scoring:.0f}", share])
    return lines


def _memory_lines() -> list[list]:
    """Weights, gradients, AdamW's two moments: 4 bytes each. FSDP2 sends three times the weights, DDP twice."""
    lines = []
    for training in trainings():
        if isinstance(training.counts, DistillationCounts):
            learning = training.counts.learning
            for gpus in GPUS[1:]:
                whole, shared = 16 * learning, 16 * learning / gpus
                more = 4 * learning * (gpus - 1) / gpus
                lines.append(
                    [training.name, gpus, f"{whole / 2**30:.2f}", f"{shared / 2**30:.2f}", f"{more / 1e6:.0f}"]
                )
    return lines


def _parts(training: Training) -> str:
    counts = training.counts
    if isinstance(counts, DetectorCounts):
        return f"frozen encoder {counts.encoder / 1e12:.2f}, heads {counts.heads / 1e12:.2f}"
    return (
        f"student {counts.student / 1e12:.2f}, foundation model {counts.foundation / 1e12:.2f}, "
        f"{training.crops:.2f} crops {training.crops * counts.crop / 1e12:.2f}"
    )


def _table(lines: list[list], headers: list[str]) -> str:
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else cell for cell in line] for line in lines]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def with_tables(page: str, named: dict[str, str]) -> str:
    """The page with these tables between the marks `<!-- table NAME -->` and `<!-- end -->`."""
    for name, table in named.items():
        mark = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, found = mark.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
        if found != 1:
            raise ValueError(f"The page has {found} places for the table {name!r}; it needs one.")
    return page


def counted_anew(configs: Sequence[str] = tuple(COUNTED)) -> dict[str, DistillationCounts | DetectorCounts]:
    """Those of COUNTED, from the models."""
    found = {}
    for config in configs:
        cfg = read_config(PAGE.parents[1] / "configs" / config)
        cfg.defrost()
        detector = isinstance(COUNTED[config], DetectorCounts)
        found[config] = detector_counts(cfg, classes=LVIS_CLASSES) if detector else distillation_counts(cfg)
    return found


def main(arguments: list[str] | None = None) -> dict[str, str]:
    """The command line; returns the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Assumed):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=field.type, default=field.default, help=MEANING[field.name]
        )
    parser.add_argument("--write", action="store_true", help="into docs/SCALING.md, with the defaults above")
    parser.add_argument("--count", action="store_true", help="count the models again and compare")
    options = parser.parse_args(arguments)
    assumed = Assumed(**{field.name: getattr(options, field.name) for field in fields(Assumed)})
    if options.count:
        for config, counts in counted_anew().items():
            print(f"{config}: {counts}" + ("" if counts == COUNTED[config] else f"\n  DIFFERS from {COUNTED[config]}"))
    named = tables(assumed)
    for name, table in named.items():
        print(f"{name}\n{table}\n")
    if options.write:
        if assumed != Assumed():
            parser.error("--write is for the assumptions that the page states: the defaults")
        PAGE.write_text(with_tables(PAGE.read_text(), named))
    return named


if __name__ == "__main__":
    main()
