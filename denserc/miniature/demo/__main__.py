"""`python -m denserc.miniature.demo`: distil, classify regions, train detectors, transfer, detect by given names."""

import argparse
from pathlib import Path

from ..train_clip import Recipe
from .run import quiet_log, run_demo, say
from .stages import Places, train_miniature_clip

REPOSITORY = Path(__file__).parents[3]
DEFAULT_VOCABULARY = "checkered blue star, striped green square, black circle, purple star, red ring, emerald disc"


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

    quiet_log(args.output)
    weights = ""
    if args.fresh:
        say("Training the miniature CLIP anew")
        weights = str(train_miniature_clip(args.output / "clip", Recipe()))
    run_demo(Places(args.output, args.configs, weights), seeds=args.seeds, names=names)


if __name__ == "__main__":
    main()
