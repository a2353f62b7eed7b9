"""`denserc dataset miniature`: drawn substitutes for COCO and LVIS."""

from pathlib import Path

from .choices import WORLD_SIZES
from .parsing import CommandParser

DESCRIPTION = """\
Write the miniature data sets: drawn scenes in the formats and folders of COCO, OV-COCO and LVIS, and a transfer set of
another look. `denserc demo` writes its own."""

EXAMPLES = """
denserc dataset miniature --root datasets/miniature --seed 0
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("dataset miniature", DESCRIPTION, EXAMPLES)
    parser.add_argument("--root", type=Path, default=Path("datasets/miniature"), help="default: datasets/miniature")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing (default: 0)")
    for name, value in WORLD_SIZES.items():
        what = "side of the scenes in pixels" if name == "side" else "number of scenes"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"{what} (default: {value})")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = vars(parser().parse_args(arguments))

    from ..miniature.write_world import Sizes, write_world

    write_world(args.pop("root"), seed=args.pop("seed"), sizes=Sizes(**args))
