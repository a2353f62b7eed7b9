"""`denserc segment`: pixels of photos labeled by words, by CAT-Seg or by dense features only."""

import argparse
from pathlib import Path

from .parsing import CommandParser

DESCRIPTION = """\
Label the pixels of pictures by words: with CAT-Seg (--model), or with the dense features of any encoder and nothing
trained (--encoder, --checkpoint). All of these may be repeated; the models are shown side by side. Writes
labels/MODEL/NAME.png (values are classes in the order of classes.json; the value after them is background),
overlays/MODEL/NAME.png, areas.csv, and the page segmentation.png and .html: picture, ground truth, each model."""

EXAMPLES = """
denserc segment photos/ --names "cat, sofa/couch, wall" --model catseg.pth --output output/seg
denserc segment photos/ --names "cat, sofa/couch, wall" --output output/seg \\
    --encoder ViT-B-16-quickgelu --weights openai --construction declip_csa
denserc segment --data-set ade20k_150_test_sem_seg --output output/seg \\
    --model CAT-Seg=catseg.pth --checkpoint DenseRC=a/denserc.safetensors CLIPSelf=b/denserc.safetensors
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("segment", DESCRIPTION, EXAMPLES)
    parser.add_argument("pictures", nargs="*", help="image files, folders (with those below), or quoted patterns")
    parser.add_argument("--images", default="", help="the same, one of them")
    parser.add_argument("--data-set", help="a registered semantic set, or a YAML description of your own")
    parser.add_argument("--names", default="", help='classes, with commas; synonyms with "/": "couch/sofa, wall"')
    parser.add_argument("--novel", default="", help="those of --names that are marked as novel")
    parser.add_argument("--labels", default="", metavar="DIR", help="label files of the pictures: value k is name k")
    parser.add_argument("--background", action="store_true", help='with --names: prompt "background" too')
    parser.add_argument("--threshold", type=float, default=-1.0, help="probability below which a pixel is background")
    more = {"action": "append", "default": []}
    parser.add_argument("--model", **more, metavar="[TITLE=]FILE", help="checkpoint of CAT-Seg")
    parser.add_argument("--encoder", **more, help="open_clip's name of a CLIP, e.g. ViT-B-16-quickgelu")
    parser.add_argument(
        "--checkpoint", nargs="+", action="extend", default=[], metavar="[TITLE=]FILE", help="encoders we distilled"
    )
    parser.add_argument("--weights", **more, help="with --encoder: a file, or one of open_clip's tags; one for each")
    parser.add_argument(
        "--construction", **more, help="with --encoder: form of the dense features, for all or each (denserc)"
    )
    parser.add_argument(
        "--protocol",
        default="declip",
        help="without --model: sizes, windows and names: declip, sclip, whole_image, ...",
    )
    parser.add_argument("--short-side", type=int, default=0, help="in place of the protocol's, pixels")
    parser.add_argument("--templates", default="openai", help="prompt templates: openai (80), vild, plain, catseg")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--number", type=int, default=0, help="pictures, evenly spread; 0: all (default: 0)")
    parser.add_argument("--page", type=int, default=12, help="pictures on the page, at most (default: 12)")
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="pixels of the largest image that is read (200 million)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 if pictures were skipped.

    Raises:
        ConfigurationError: No model or no pictures, or options that exclude each other.
        DataError: Pictures, label files or names that cannot be used.
        CheckpointError: A model that cannot be loaded.
    """
    args = parser().parse_intermixed_args(arguments)

    from ..structures import ConfigurationError
    from ..tools import segment as tool
    from ..tools.reading import report_unreadable

    given = [*args.pictures, *([args.images] if args.images else [])]
    if bool(given) == bool(args.data_set):
        raise ConfigurationError("Give either pictures or --data-set.")
    if args.data_set and (args.names or args.labels or args.background):
        raise ConfigurationError("--data-set brings its own names and labels; use pictures with --names and --labels.")
    if args.data_set:
        subjects = tool.data_set_pictures(args.data_set, number=args.number)
    else:
        names, novel = _listed(args.names), _listed(args.novel)
        subjects = tool.photographs(given, names, novel=novel, labels=args.labels, number=args.number)
    predictors = _predictors(args, subjects)
    settings = {title: tool.description(predictor.model) for title, predictor in predictors.items()}
    unreadable = tool.segment(
        predictors, subjects, args.output, page=args.page, settings=settings, max_pixels=args.max_pixels
    )
    status = report_unreadable(unreadable)
    count, page = len(subjects.pictures) - len(unreadable), args.output / "segmentation.png"
    skipped = f"; unreadable and skipped: {len(unreadable)}" if unreadable else ""
    print(f"wrote {count} label maps per model, {args.output / 'areas.csv'}, {page} and .html{skipped}")
    return status


def _listed(names: str) -> list[str]:
    """ "couch/sofa, wall" -> ["couch, sofa", "wall"]."""
    return [", ".join(part.strip() for part in name.split("/")) for name in names.split(",") if name.strip()]


def _predictors(args: argparse.Namespace, subjects) -> dict:
    """Title -> Predictor with the vocabulary of the subjects, models first."""
    from ..predictor import Predictor
    from ..structures import ConfigurationError
    from ..tools import segment as tool

    if args.model and args.background and args.threshold > 0:
        raise ConfigurationError("CAT-Seg has a background by --background or by --threshold, not by both.")
    sources = [(*tool.titled(given), True) for given in args.model] + [(*one, False) for one in _encoders(args)]
    titles = [title for title, _, _ in sources]
    if not sources:
        raise ConfigurationError("Give a model: --model, --checkpoint or --encoder.")
    if len(set(titles)) < len(titles):
        raise ConfigurationError(f"Models need titles of their own, TITLE=...; got {titles}.")
    predictors = {}
    for title, source, trained in sources:
        background: dict = {"background": args.background or args.threshold > 0}
        if trained:
            predictor = Predictor(source, device=args.device)
            kind = "prompt" if args.background else "threshold" if args.threshold > 0 else None
            value = args.threshold if kind == "threshold" else None
            background = {"background": kind, "background_threshold": value} if kind else {}
        else:
            predictor = Predictor(
                tool.dense_segmenter(
                    source,
                    protocol=args.protocol,
                    templates=args.templates,
                    short_side=args.short_side,
                    threshold=args.threshold,
                    device=args.device,
                    cache_dir=args.output / "text_embeddings",
                )
            )
        if subjects.data_set:
            predictor.use_dataset(subjects.data_set)
        else:
            predictor.set_vocabulary(subjects.names, novel=subjects.novel, **background)
        predictors[title] = predictor
    return predictors


def _encoders(args: argparse.Namespace) -> list[tuple[str, dict]]:
    """(title, configuration keys) of each encoder without a model."""
    from ..structures import ConfigurationError
    from ..tools.segment import titled

    found: list[tuple[str, dict]] = []
    for given in args.checkpoint:
        title, file = titled(given)
        found.append((title, {"MODEL.ENCODER.CHECKPOINT": file}))
    each = {"--weights": args.weights or [""], "--construction": args.construction or ["denserc"]}
    for option, values in each.items():
        if len(values) not in (1, len(args.encoder)) and args.encoder:
            raise ConfigurationError(f"Give {option} once, or once for each --encoder; got {len(values)}.")
    for i, given in enumerate(args.encoder):
        title, named, encoder = given.rpartition("=")
        weights, construction = (values[i % len(values)] for values in each.values())
        keys = {"NAME": encoder, "WEIGHTS": weights}
        found.append(
            (
                title if named else encoder,
                {f"MODEL.ENCODER.{key}": value for key, value in keys.items()}
                | {"MODEL.CONSTRUCTION.NAME": construction},
            )
        )
    return found
