"""`denserc demo`: the miniature world, from CLIP to open-vocabulary detections."""

from pathlib import Path

from .parsing import CommandParser, listed

DESCRIPTION = """\
Detect on fresh scenes with the packaged detector (first.png, within a minute), then run every stage on the miniature
world: distill, classify regions, train detectors and segmenters, transfer to other data, detect given names. It takes
some minutes on two CPU cores; finished stages are kept. Writes report.html, results.json and pictures. With --llava, a
small language model answers questions about pictures over CLIP, over DenseRC and without pictures; it needs
denserc[llava] and writes to OUTPUT/llava."""

EXAMPLES = """
denserc demo --seeds 0 1 2 --output output/demo
denserc demo --llava
denserc demo --llava --features penultimate dense joined
"""

FEATURES = ("penultimate", "dense", "joined")

DEFAULT_VOCABULARY = "checkered blue star, striped green square, black circle, purple star, red ring, emerald disc"


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("demo", DESCRIPTION, EXAMPLES)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder (default: output/demo)")
    parser.add_argument("--configs", type=Path, help="folder of configs (default: the packaged ones)")
    parser.add_argument("--fresh", action="store_true", help="train the miniature CLIP anew (up to an hour on 2 cores)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="seeds of distillation and detector training (default: 0)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        help="stages that run at the same time, one thread each (default: the number of threads)",
    )
    parser.add_argument(
        "--vocabulary", default=DEFAULT_VOCABULARY, help=f"names to detect, with commas (default: {DEFAULT_VOCABULARY})"
    )
    parser.add_argument("--llava", action="store_true", help="train and evaluate LLaVA instead of detectors")
    parser.add_argument(
        "--features",
        nargs="+",
        choices=FEATURES,
        metavar="FEATURE",
        help=f"with --llava: what enters the projector: {', '.join(FEATURES)} (default: penultimate)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = parser()
    args = options.parse_args(arguments)
    if args.processes is not None and args.processes < 1:
        options.error(f"--processes must be at least 1; got {args.processes}")
    if args.features and not args.llava:
        options.error("--features belongs to --llava")
    if args.llava:
        from ..mllm import require_training_packages

        require_training_packages()

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
    if args.llava:
        from ..miniature.demo.run_llava import run_llava_demo

        features = list(dict.fromkeys(args.features or FEATURES[:1]))
        run_llava_demo(places, seeds=args.seeds, features=features, processes=args.processes)
        return
    run_demo(places, seeds=args.seeds, names=listed(args.vocabulary), processes=args.processes)
