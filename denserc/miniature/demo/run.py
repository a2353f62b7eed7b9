"""The demo as one call."""

import logging
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger

from ...data.datasets.builtin import register_miniature
from ...encoders.miniature import MINIATURE_WEIGHTS
from ...structures.files import write_json
from ...visualization import ResultTable, print_table, save_picture
from ..world import CLASS_NAMES, Domain
from ..write_world import Sizes
from .pictures import ask, before_and_after, compare_detectors, first_look
from .processes import Stage, run_stages
from .report import segmentation_summary, summary, write_demo_report
from .segmentation import compare_segmenters, make_segmenter
from .stages import CONTENDERS, Contender, Places, make_detector, make_encoders, prepare_world


def run_demo(
    places: Places,
    *,
    seeds: Sequence[int] = (0,),
    names: Sequence[str],
    sizes: Sizes | None = None,
    encoder_overrides: Sequence = (),
    detector_overrides: Sequence = (),
    segmenter_overrides: Sequence = (),
    processes: int | None = None,
) -> ResultTable:
    """Show detections of the packaged detector, run every stage for every seed and encoder, and write the report.

    Args:
        places: Folders to read and write.
        seeds: Seeds of distillation and detector training; the world and the CLIP stay the same.
        names: Class names to detect on fresh scenes.
        sizes: Sizes of the world; None for its defaults.
        encoder_overrides, detector_overrides, segmenter_overrides: Config keys and values for each kind of training.
        processes: Number of stages that run at the same time, one thread each; results do not depend on it.
            None for PyTorch's number of threads.
    """
    start = time.monotonic()
    show_first_look(places.output)
    say("Writing the miniature world")
    prepare_world(places, sizes=sizes)
    processes = processes or torch.get_num_threads()
    overrides = [list(one) for one in (encoder_overrides, detector_overrides, segmenter_overrides)]
    stages = [stage for seed in seeds for stage in _stages(places, seed, *overrides)]
    found = run_stages(stages, processes)
    results = {seed: {c.key: _gathered(found, seed, c) for c in CONTENDERS} for seed in seeds}

    say(f"Detecting on fresh scenes: {', '.join(names)}")
    table, segmentation_table = summary(results), segmentation_summary(results)
    asked, answers = ask(places, seeds[0], names)
    comparison = compare_detectors(places, seeds[0], CLASS_NAMES)
    save_picture(places.output / "detections.png", comparison)
    save_picture(places.output / "asked.png", asked)
    segmented = {domain: compare_segmenters(places, seeds[0], domain) for domain in Domain}
    for domain, page in segmented.items():
        save_picture(places.output / f"segmentation_{domain.value}.png", page)
    settings = {
        "CLIP weights": places.weights or f"packaged ({MINIATURE_WEIGHTS.name})",
        "seeds": ", ".join(map(str, seeds)),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {processes} processes of one thread",
        "minutes of training and evaluation": f"{_total_seconds(results) / 60:.1f}",
        "minutes of this run": f"{(time.monotonic() - start) / 60:.1f}",
    }
    report, results_file = places.output / "report.html", places.output / "results.json"
    write_demo_report(
        report,
        [table, segmentation_table],
        places,
        seeds[0],
        comparison=comparison,
        asked=asked,
        names=names,
        segmented=segmented,
        features=before_and_after(places, seeds[0]),
        settings=settings,
    )
    content = {
        "table": table,
        "segmentation_table": segmentation_table,
        "runs": results,
        "asked": {"names": list(names), "found": answers},
        "settings": settings,
    }
    write_json(results_file, content, indent=2)
    print_table(table, title="DenseRC on the miniature world")
    print_table(segmentation_table, title="Segmentation")
    print(f"\nReport: {report}\nResults: {results_file}\nLog: {places.output / 'log.txt'}")
    return table


def show_first_look(output: Path) -> None:
    """Detect on fresh scenes by the packaged detector: print what it finds and write first.png."""
    start = time.monotonic()
    say("Detecting on fresh scenes with the packaged detector")
    page, found = first_look()
    save_picture(output / "first.png", page)
    for number, objects in enumerate(found, start=1):
        words = [f"{name} {score:.2f}" for name, score in zip(objects.labels, objects.scores, strict=True)]
        print(f"scene {number}: {', '.join(words) or 'nothing'}")
    print(f"{output / 'first.png'}: ground truth and detections, after {time.monotonic() - start:.1f} s; red is novel")


def _stages(
    places: Places, seed: int, encoder_overrides: list, detector_overrides: list, segmenter_overrides: list
) -> list[Stage]:
    """The stages of one seed, in the order that keeps two processes busy to the end."""
    # What is trained over an encoder: name -> task and function of (places, contender, seed).
    downstream = {
        "detector": ("training a detector, evaluating it on both domains", make_detector, detector_overrides),
        "segmenter": ("training CAT-Seg, evaluating it on both domains", make_segmenter, segmenter_overrides),
    }
    stages = []
    for distilled, task in ((True, "distilling and classifying regions"), (False, "classifying regions")):
        contenders = [c for c in CONTENDERS if bool(c.config) is distilled]
        title = f"seed {seed}, {' and '.join(c.title for c in contenders)}: {task}"
        run = partial(run_stage, make_encoders, places, contenders, seed, encoder_overrides)
        stages.append(Stage((seed, "encoders", distilled), title, run))
    for name, (task, make, overrides) in downstream.items():
        for contender in CONTENDERS:
            title = f"seed {seed}, {contender.title}: {task}"
            run = partial(run_stage, make, places, contender, seed, overrides)
            encoders = (seed, "encoders", bool(contender.config))
            stages.append(Stage((seed, name, contender.key), title, run, after=(encoders,)))
    return stages


def run_stage(make: Callable[..., dict], places: Places, *arguments) -> dict:
    """Run a stage in a process of its own."""
    quiet_log(places.output)
    register_miniature(places.world)
    return make(places, *arguments)


def _gathered(found: Mapping, seed: int, contender: Contender) -> dict:
    """All results of a contender, and the seconds of each stage."""
    parts = {"encoder": found[seed, "encoders", bool(contender.config)][contender.key]}
    parts |= {name: result for (of_seed, name, key), result in found.items() if (of_seed, key) == (seed, contender.key)}
    merged = {key: value for part in parts.values() for key, value in part.items()}
    return merged | {"seconds": {name: part["seconds"] for name, part in parts.items()}}


def say(words: str) -> None:
    """A headline on the terminal."""
    print(f"\n== {words}", flush=True)


def quiet_log(output: Path) -> None:
    """Log everything to a file; the terminal shows only progress bars and warnings."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ("denserc", "detectron2", "fvcore"):
        logger = setup_logger(str(output), name=name)
        for handler in logger.handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.setLevel(logging.WARNING)


def _total_seconds(results: dict[int, dict[str, dict]]) -> float:
    return sum(sum(run["seconds"].values()) for runs in results.values() for run in runs.values())
