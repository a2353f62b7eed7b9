"""`denserc detect`: objects in photos, as pictures, COCO JSON and CSV."""

from pathlib import Path

from .parsing import CommandParser, listed

DESCRIPTION = """\
Detect objects in photos by the names of their classes. Writes pictures/ (boxes drawn), detections.json (COCO's results
format), images.json (COCO's images and categories, to which the ids in detections.json belong) and detections.csv.
Boxes are in pixels of the upright photo. Without --model, the packaged miniature is used. It shows that the
installation works and knows only a drawn world; photos need a model trained on photos."""

EXAMPLES = """
denserc detect photos/ --model model_final.pth --names "red cup, ball" --output out/
denserc detect output/demo/world/coco/val2017 --output out/
denserc detect a.jpg b.png "more/*.jpg" --model model_final.pth --names-file names.txt --output out/
"""

DEFAULT_MODEL = "miniature"


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("detect", DESCRIPTION, EXAMPLES)
    parser.add_argument("images", nargs="+", help="image files, folders (with those below), or quoted patterns")
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="FILE",
        help=f"checkpoint, such as output/.../model_final.pth (default: the packaged {DEFAULT_MODEL})",
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--names", help='classes to detect, with commas: "red cup, ball" (default: the model\'s own)')
    names.add_argument("--names-file", type=Path, metavar="FILE", help="a JSON list, or one class per line")
    parser.add_argument("--novel", default="", help="those of the classes that training has not seen, if known")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--threshold", type=float, default=0.2, help="lowest score of a detection (default: 0.2)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--batch-size", type=int, default=1, help="most images in one forward pass (default: 1)")
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="pixels of the largest image that is read (200 million)"
    )
    parser.add_argument("--no-pictures", action="store_true", help="write JSON and CSV only")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 if images were skipped.

    Raises:
        DataError: No image was found or none can be read, or the names are not a vocabulary.
        CheckpointError: The model cannot be loaded.
        ConfigurationError: Neither names were given nor has the model any.
    """
    args = parser().parse_args(arguments)

    from ..data.vocabulary.published import read_class_list
    from ..predictor import Predictor
    from ..structures import ConfigurationError
    from ..tools.detect import detect, image_files
    from ..tools.reading import report_unreadable

    files = image_files(args.images)
    names = None if args.names is None else listed(args.names)
    if args.names_file is not None:
        names = list(read_class_list(args.names_file))
    predictor = Predictor(
        args.model,
        names,
        novel=listed(args.novel),
        device=args.device,
        threshold=args.threshold,
        batch_size=args.batch_size,
    )
    if predictor.vocabulary is None:
        raise ConfigurationError(
            f"{args.model} has no class names of its own: give --names or --names-file, or use a file of "
            "`denserc export portable --names`."
        )
    if description := predictor.model.metadata.get("description"):
        which = "of its own" if names is None else "given"
        print(f"model: {args.model}, which knows {description}; class names: {len(predictor.names)}, {which}")
    found, unreadable = detect(predictor, files, args.output, pictures=not args.no_pictures, max_pixels=args.max_pixels)
    status = report_unreadable(unreadable)
    images = len(files) - len(unreadable)
    print(f"images: {images}, detections: {found}, unreadable and skipped: {len(unreadable)}; written to {args.output}")
    return status
