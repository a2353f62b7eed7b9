"""`denserc demo`: the miniature world, from CLIP to open-vocabulary detections."""

from pathlib import Path

from .parsing import CommandParser, listed

DESCRIPTION = """\
Run every stage on the miniature world: distill, classify regions, train detectors, transfer to other data, detect given
names. Some minutes on two CPU cores; finished stages are kept. Writes report.html, results.json and pictures."""

EXAMPLES = """
denserc demo --seeds 0 1 2 --output output/demo
"""

DEFAULT_VOCABULARY = "checkered blue star, striped green square, black circle, purple star, red ring, emerald disc"


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("demo", DESCRIPTION, EXAMPLES)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder (default: output/demo)")
    parser.add_argument("--configs", type=Path, help="folder of configs (default: the packaged ones)")
    parser.add_argument("--fresh", action="store_true", help="train the miniature CLIP anew (up to an hour on 2 cores)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of distillation and detector training (default: 0)"
    )
    parser.add_argument(
        "--vocabulary", default=DEFAULT_VOCABULARY, help=f"names to detect, with commas (default: {DEFAULT_VOCABULARY})"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..miniature.demo.run import quiet_log, run_demo, say
    from ..miniature.demo.stages import Places, train_miniature_clip
    from ..miniature.train_clip import Recipe
    from ..model_zoo import configs_folder

    quiet_log(args.output)
    weights = ""
    if args.fresh:
        say("Training the miniature CLIP anew")
        weights = str(train_miniature_clip(args.output / "clip", Recipe()))
    places = Places(args.output, args.configs or configs_folder(), weights)
    run_demo(places, seeds=args.seeds, names=listed(args.vocabulary))
