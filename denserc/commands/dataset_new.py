"""`denserc dataset new`: a folder of images and a COCO file become a described data set."""

from .parsing import CommandParser, listed

DESCRIPTION = """\
Describe and split a data set of your own: a folder of images and a COCO or LVIS file. The example writes my/birds.yaml,
my/birds_train.json and my/birds_val.json, with one in five images, drawn at random, for validation. Classes are the
categories of the file; those of --novel are kept from training. --val 1 makes a set for evaluation only.
DATASETS.REGISTER "('my/birds.yaml',)" makes birds_train and birds_val known to the other commands."""

EXAMPLES = """
denserc dataset new birds --annotations birds.json --images photos --novel "kingfisher, owl" --val 0.2 --output my
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("dataset new", DESCRIPTION, EXAMPLES)
    parser.add_argument("name", help="of the set")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="a COCO or LVIS file")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that its file names start from")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the description and the split files")
    parser.add_argument("--novel", default="", metavar="NAMES", help="classes to keep from training, with commas")
    parser.add_argument("--val", type=float, default=0.2, help="share of the images for validation (default: 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..tools.new_data_set import new_data_set

    path = new_data_set(
        args.name,
        args.annotations,
        args.images,
        args.output,
        novel=listed(args.novel),
        val_share=args.val,
        seed=args.seed,
    )
    print(f"{path}; next: denserc doctor {path}")
