"""`denserc show`: detections of several detectors beside the ground truth, on one page."""

from pathlib import Path

from .parsing import CommandParser, listed

DESCRIPTION = """\
Draw detections in the manner of the paper's Figure 6: novel classes red, base classes blue, one column per detector. A
data set, registered by name or described in a YAML file, brings its vocabulary and its ground truth, which is the first
column. Writes detections.png and detections.html."""

EXAMPLES = """
denserc show --detector model_final.pth --data-set ov_coco_2017_val --output output/seen
denserc show --detector CLIPSelf=a.pth DenseRC=b.pth --images photos/ --names "red cup, ball" --novel ball \\
    --output output/seen
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("show", DESCRIPTION, EXAMPLES)
    parser.add_argument("--detector", nargs="+", required=True, metavar="[TITLE=]FILE", help="detector checkpoints")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data-set", help="a registered set, or a YAML description of your own")
    source.add_argument("--images", metavar="DIR", help="a folder of images")
    parser.add_argument("--names", default="", help="classes to detect, with commas (default: those of the data set)")
    parser.add_argument("--novel", default="", help="those of --names that are novel")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--number", type=int, default=8, help="pictures, evenly spread; 0: all (default: 8)")
    parser.add_argument("--novel-only", action="store_true", help="with --data-set: only images with novel objects")
    parser.add_argument("--threshold", type=float, default=0.2, help="lowest score that is drawn (default: 0.2)")
    parser.add_argument("--most", type=int, default=12, help="most detections drawn in a picture (default: 12)")
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="IoU from which only the better box is drawn (default: 0.5)"
    )
    parser.add_argument(
        "--largest", type=int, default=640, help="longer side of a picture on the page, in pixels (default: 640)"
    )
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="pixels of the largest image that is read (200 million)"
    )
    parser.add_argument("--masks", action="store_true", help="draw masks too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 if images were skipped.

    Raises:
        ConfigurationError: A folder of images without names, or two detectors of one title.
        DataError: The data set or its images are absent.
    """
    args = parser().parse_args(arguments)

    from ..predictor import Predictor
    from ..structures import ConfigurationError, Vocabulary
    from ..tools.reading import report_unreadable
    from ..tools.show_detections import Shown, from_data_set, from_folder, show, titled

    names = Vocabulary(listed(args.names), listed(args.novel)) if args.names else None
    if args.data_set:
        pictures, vocabulary = from_data_set(args.data_set, args.number, novel_only=args.novel_only)
        if names is not None:  # labels of the annotations follow the set's own vocabulary
            pictures, vocabulary = [Shown(shown.file) for shown in pictures], names
    elif names is None:
        raise ConfigurationError("--images needs --names: the classes to detect.")
    else:
        pictures, vocabulary = from_folder(args.images, args.number), names
    detectors = {
        title: Predictor(path, device=args.device, threshold=args.threshold)
        for title, path in titled(args.detector).items()
    }
    unreadable = show(
        detectors,
        pictures,
        vocabulary,
        args.output,
        most=args.most,
        overlap=args.overlap,
        largest=args.largest,
        masks=args.masks,
        max_pixels=args.max_pixels,
    )
    status = report_unreadable(unreadable)
    skipped = f"; unreadable and skipped: {len(unreadable)}" if unreadable else ""
    print(f"wrote {args.output / 'detections.png'} and {args.output / 'detections.html'}{skipped}")
    return status
