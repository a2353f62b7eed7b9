"""The demo as one call."""

import logging
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger

from ...encoders.miniature import MINIATURE_WEIGHTS
from ...structures.files import write_json
from ...visualization import ResultTable, print_table, save_picture
from ..world import CLASS_NAMES
from ..write_world import Sizes
from .pictures import ask, before_and_after, compare_detectors
from .report import summary, write_demo_report
from .stages import CONTENDERS, Places, make_detector, make_encoder, prepare_world


def run_demo(
    places: Places,
    *,
    seeds: Sequence[int] = (0,),
    names: Sequence[str],
    sizes: Sizes | None = None,
    encoder_overrides: Sequence = (),
    detector_overrides: Sequence = (),
) -> ResultTable:
    """Every stage for every seed and encoder, then the table, the pictures and the report.

    Args:
        places: where to read and write.
        seeds: of distillation and detector training; the world and the CLIP stay the same.
        names: what to detect on fresh scenes.
        sizes: of the world; its default if None.
        encoder_overrides, detector_overrides: config keys and values for both kinds of training.
    """
    start = time.monotonic()
    say("Writing the miniature world")
    prepare_world(places, sizes=sizes)
    results: dict[int, dict[str, dict]] = {}
    for seed in seeds:
        results[seed] = {}
        for number, contender in enumerate(CONTENDERS, start=1):
            where = f"seed {seed}, encoder {number} of {len(CONTENDERS)}, {contender.title}"
            say(f"{where}: {'distilling and ' if contender.config else ''}classifying regions")
            encoder = make_encoder(places, contender, seed, list(encoder_overrides))
            say(f"{where}: training a detector on base classes, evaluating it on both domains")
            detector = make_detector(places, contender, seed, list(detector_overrides))
            seconds = {"encoder": encoder["seconds"], "detector": detector["seconds"]}
            results[seed][contender.key] = {**encoder, **detector, "seconds": seconds}

    say(f"Detecting on fresh scenes: {', '.join(names)}")
    table = summary(results)
    asked, answers = ask(places, seeds[0], names)
    comparison = compare_detectors(places, seeds[0], CLASS_NAMES)
    save_picture(places.output / "detections.png", comparison)
    save_picture(places.output / "asked.png", asked)
    settings = {
        "CLIP weights": places.weights or f"packaged ({MINIATURE_WEIGHTS.name})",
        "seeds": ", ".join(map(str, seeds)),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "minutes of training and evaluation": f"{_total_seconds(results) / 60:.1f}",
        "minutes of this run": f"{(time.monotonic() - start) / 60:.1f}",
    }
    report, results_file = places.output / "report.html", places.output / "results.json"
    write_demo_report(
        report,
        table,
        places,
        seeds[0],
        comparison=comparison,
        asked=asked,
        names=names,
        features=before_and_after(places, seeds[0]),
        settings=settings,
    )
    content = {"table": table, "runs": results, "asked": {"names": list(names), "found": answers}, "settings": settings}
    write_json(results_file, content, indent=2)
    print_table(table, title="DenseRC on the miniature world")
    print(f"\nReport: {report}\nResults: {results_file}\nLog: {places.output / 'log.txt'}")
    return table


def say(words: str) -> None:
    """A headline on the terminal."""
    print(f"\n== {words}", flush=True)


def quiet_log(output: Path) -> None:
    """Everything to a file; the terminal is for the progress bars and for warnings."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ("denserc", "detectron2", "fvcore"):
        logger = setup_logger(str(output), name=name)
        for handler in logger.handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.setLevel(logging.WARNING)


def _total_seconds(results: dict[int, dict[str, dict]]) -> float:
    return sum(sum(run["seconds"].values()) for runs in results.values() for run in runs.values())
