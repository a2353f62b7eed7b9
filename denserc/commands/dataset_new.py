"""`denserc dataset new`: a folder of images and its annotations become a described data set."""

from pathlib import Path

from .parsing import CommandParser, listed

DESCRIPTION = """\
Describe and split a data set of your own: a folder of images and a COCO or LVIS file. The example writes my/birds.yaml,
my/birds_train.json and my/birds_val.json, with one in five images, drawn at random, for validation. Classes are the
categories of the file; those of --novel are kept from training. --val 1 makes a set for evaluation only.
DATASETS.REGISTER "('my/birds.yaml',)" makes birds_train and birds_val known to the other commands.

For segmentation give --labels (a folder of label files with the images' names, and --classes), --panoptic (with
--masks) or --instances; label files go to my/street_train and my/street_val."""

EXAMPLES = """
denserc dataset new birds --annotations birds.json --images photos --novel "kingfisher, owl" --val 0.2 --output my
denserc dataset new street --labels labels --classes "road, sky, tree" --images photos --output my
denserc dataset new street --panoptic panoptic.json --masks panoptic --images photos --output my
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("dataset new", DESCRIPTION, EXAMPLES)
    parser.add_argument("name", help="name of the set")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", metavar="FILE", help="for detection: a COCO or LVIS file")
    source.add_argument("--labels", default="", metavar="DIR", help="for segmentation: label files, PNG or TIFF")
    source.add_argument("--panoptic", default="", metavar="FILE", help="for segmentation: a COCO panoptic file")
    source.add_argument("--instances", default="", metavar="FILE", help="for segmentation: a COCO or LVIS file")
    parser.add_argument(
        "--classes",
        default="",
        metavar="NAMES",
        help="classes of --labels, value 0 first: with commas, or a file (JSON, lines)",
    )
    parser.add_argument("--masks", default="", metavar="DIR", help="PNG files of --panoptic")
    parser.add_argument("--background", action="store_true", help="with --instances: other pixels are a class")
    parser.add_argument("--ignore", type=int, help="value of ignored pixels (255; 65535 for more than 255 classes)")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that its file names start from")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the description and the split files")
    parser.add_argument("--novel", default="", metavar="NAMES", help="classes to keep from training, with commas")
    parser.add_argument("--val", type=float, default=0.2, help="share of the images for validation (default: 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..data.vocabulary.published import read_class_list
    from ..structures import ConfigurationError
    from ..tools.new_data_set import new_data_set, new_semantic_set

    options = {"novel": listed(args.novel), "val_share": args.val, "seed": args.seed}
    if args.annotations is not None:
        if args.classes or args.masks or args.background or args.ignore is not None:
            raise ConfigurationError("--classes, --masks, --background and --ignore are for segmentation.")
        path = new_data_set(args.name, args.annotations, args.images, args.output, **options)
    else:
        from_file = args.classes and Path(args.classes).is_file()
        path = new_semantic_set(
            args.name,
            args.images,
            args.output,
            labels=args.labels,
            classes=read_class_list(args.classes) if from_file else listed(args.classes),
            panoptic=args.panoptic,
            masks=args.masks,
            instances=args.instances,
            background=args.background,
            ignore=args.ignore,
            **options,
        )
    print(f"{path}; next: denserc doctor {path}")
