"""`denserc describe`: contents of a DenseRC checkpoint."""

import json

from .parsing import CommandParser

DESCRIPTION = """\
Describe a DenseRC checkpoint: encoder, construction, parameters, multiply-accumulates at given input sizes, the
fingerprint of the text tower and, on sample images, the mean gate of every head of every block that gives values."""

EXAMPLES = """
denserc describe denserc.safetensors --sizes 640 768x1024 --images a.jpg
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("describe", DESCRIPTION, EXAMPLES)
    parser.add_argument("checkpoint", help="a denserc.safetensors")
    parser.add_argument("--sizes", nargs="*", default=["640", "1024"], help="input sizes, e.g. 640 or 768x1024 (h x w)")
    parser.add_argument("--images", nargs="*", default=[], metavar="FILE", help="sample images for the gates")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..tools.describe import describe, parse_size, print_description

    result = describe(args.checkpoint, [parse_size(size) for size in args.sizes], args.images)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print_description(result)
