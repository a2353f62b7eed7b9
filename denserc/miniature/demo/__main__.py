"""`python -m denserc.miniature.demo`: distil, classify regions, train detectors, transfer, detect by given names."""

import argparse
import logging
import platform
import time
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger

from ...encoders.miniature import MINIATURE_WEIGHTS
from ...visualization import print_table, save_picture, write_results
from ..train_clip import Recipe
from ..world import CLASS_NAMES
from .pictures import ask, before_and_after, compare_detectors
from .report import summary, write_demo_report
from .stages import CONTENDERS, Places, make_detector, make_encoder, prepare_world, train_miniature_clip

REPOSITORY = Path(__file__).parents[3]
DEFAULT_VOCABULARY = (
    "solid blue ring, striped heart, red thing, dotted star, emerald hoop, checkered cross, black crescent"
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder of everything that is made")
    parser.add_argument("--configs", type=Path, default=REPOSITORY / "configs", help="the repository's configs/")
    parser.add_argument("--fresh", action="store_true", help="train the miniature CLIP anew (up to an hour on 2 cores)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of distillation and detector training")
    parser.add_argument("--vocabulary", default=DEFAULT_VOCABULARY, help="names to detect on fresh scenes, with commas")
    args = parser.parse_args()
    names = [name.strip() for name in args.vocabulary.split(",") if name.strip()]

    _quiet_log(args.output)
    start = time.monotonic()
    places = Places(args.output, args.configs)
    if args.fresh:
        _say("Training the miniature CLIP anew")
        places = Places(args.output, args.configs, str(train_miniature_clip(places, Recipe())))
    _say("Writing the miniature world")
    prepare_world(places)

    results: dict[int, dict[str, dict]] = {}
    for seed in args.seeds:
        results[seed] = {}
        for number, contender in enumerate(CONTENDERS, start=1):
            where = f"seed {seed}, encoder {number} of {len(CONTENDERS)}, {contender.title}"
            _say(f"{where}: {'distilling and ' if contender.config else ''}classifying regions")
            encoder = make_encoder(places, contender, seed)
            _say(f"{where}: training a detector on base classes, evaluating it on both domains")
            detector = make_detector(places, contender, seed)
            results[seed][contender.key] = {
                **encoder,
                **detector,
                "seconds": {"encoder": encoder["seconds"], "detector": detector["seconds"]},
            }

    _say(f"Detecting on fresh scenes: {', '.join(names)}")
    seed, table = args.seeds[0], summary(results)
    asked, answers = ask(places, seed, names)
    comparison = compare_detectors(places, seed, CLASS_NAMES)
    save_picture(args.output / "detections.png", comparison)
    save_picture(args.output / "asked.png", asked)
    seconds = time.monotonic() - start
    settings = {
        "CLIP weights": places.weights or f"packaged ({MINIATURE_WEIGHTS.name})",
        "seeds": ", ".join(map(str, args.seeds)),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "minutes of this run": f"{seconds / 60:.1f}",
    }
    features = before_and_after(places, seed)
    report = args.output / "report.html"
    write_demo_report(
        report,
        table,
        places,
        seed,
        comparison=comparison,
        asked=asked,
        names=names,
        features=features,
        settings=settings,
    )
    results_file = args.output / "results.json"
    write_results(
        results_file,
        {"table": table, "runs": results, "asked": {"names": names, "found": answers}, "settings": settings},
    )
    print_table(table, title="DenseRC on the miniature world")
    print(f"\nReport: {report}\nResults: {results_file}\nLog: {args.output / 'log.txt'}")


def _say(words: str) -> None:
    print(f"\n== {words}", flush=True)


def _quiet_log(output: Path) -> None:
    """Everything to a file; the terminal is for the progress bars and for warnings."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ("denserc", "detectron2", "fvcore"):
        logger = setup_logger(str(output), name=name)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
