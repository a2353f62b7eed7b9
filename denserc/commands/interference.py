"""`denserc lab interference`: share of unrelated patches in a feature."""

from pathlib import Path

from .choices import CONSTRUCTIONS, UNRELATED_PATCHES
from .parsing import CommandParser

DESCRIPTION = """\
Measure section 6 of the paper's supplement: how much of each construction's features comes from unrelated patches. All
constructions are built over the same tower. Means are over the patches of a region, then over all regions, so that a
large background counts as one region. Writes interference.json and interference.png; docs/INTERFERENCE.md reads them.
"""

EXAMPLES = """
denserc lab interference --data-set miniature_panoptic_val_regions --output DIR
denserc lab interference --checkpoint denserc.safetensors --weights clip.pt --input-size 1024 \\
    --images FOLDER --annotations coco.json --output DIR
"""

DEFAULT = ("denserc", "denserc_none", "denserc_qk", "denserc_qq", "declip", "last_block_values", "clipself")
KINDS = {"all": (True, False), "things": (True,), "stuff": (False,)}


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("lab interference", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--checkpoint", default="", metavar="FILE", help="denserc.safetensors whose tower and gates are measured"
    )
    parser.add_argument("--encoder", default="DenseRC-Miniature", help="open_clip's name, without a checkpoint")
    parser.add_argument("--weights", default="", help="file or tag of the plain CLIP: the teacher")
    parser.add_argument("--data-set", default="miniature_panoptic_val_regions", help="a registered set with regions")
    parser.add_argument("--images", default="", metavar="DIR", help="folder of images, instead of a registered set")
    parser.add_argument("--annotations", default="", metavar="FILE", help="COCO-format file of these images")
    parser.add_argument("--num-images", type=int, default=100, help="evenly spread over the set; 0: all (default: 100)")
    parser.add_argument("--input-size", type=int, default=0, help="side of the square input; 0: twice the native size")
    parser.add_argument(
        "--constructions",
        nargs="+",
        default=list(DEFAULT),
        choices=CONSTRUCTIONS,
        metavar="NAME",
        help=f"one or more of {', '.join(CONSTRUCTIONS)} (default: {' '.join(DEFAULT)})",
    )
    parser.add_argument(
        "--unrelated", default="outside_region", choices=UNRELATED_PATCHES, help="patches that count as off-target"
    )
    parser.add_argument("--regions", default="all", choices=KINDS, help="kind of regions (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..analysis.interference_report import picture, tables
    from ..engine.runtime import resolve_device
    from ..structures.files import write_json
    from ..tools.interference import build_encoders, measure
    from ..tools.region_entries import entries_with_regions
    from ..visualization import print_table, save_picture

    encoders, teacher, origin = build_encoders(args.constructions, args.checkpoint, args.encoder, args.weights)
    for module in (teacher, *encoders.values()):
        module.to(resolve_device(args.device))
    size = args.input_size or 2 * teacher.native_size
    entries = entries_with_regions(args.data_set, args.images, args.annotations, args.num_images)
    results = measure(encoders, teacher, entries, input_size=size, unrelated=args.unrelated, kinds=KINDS[args.regions])
    for title, table in tables(results["constructions"]).items():
        print_table(table, title=title)
    data = args.annotations or args.data_set
    settings = origin | {"data": data, "input size": size, "unrelated": args.unrelated, "of regions": args.regions}
    print(" · ".join(f"{key}: {value}" for key, value in settings.items()))
    print(f"{results['regions']} regions, {results['patches']} patches")
    write_json(args.output / "interference.json", {"settings": settings, **results}, indent=2)
    save_picture(args.output / "interference.png", picture(results["constructions"]))
    print(f"Written: {args.output / 'interference.json'}, {args.output / 'interference.png'}")
