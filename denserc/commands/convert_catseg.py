"""`denserc convert catseg`: a published CAT-Seg model as a checkpoint of ours."""

from .parsing import CommandParser

DESCRIPTION = """\
Convert a published CAT-Seg model, over OpenAI's CLIP or (DeCLIP's branch) over EVA-CLIP, exactly or with the full list
of what does not fit. The config follows from keys and shapes of the published models and is printed; --config names
another."""

EXAMPLES = """
denserc convert catseg model_base.pth catseg.pth
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("convert catseg", DESCRIPTION, EXAMPLES)
    parser.add_argument("file", help="a published model, .pth")
    parser.add_argument("output", help="the checkpoint to write, .pth")
    parser.add_argument(
        "--config", default="", metavar="FILE", help="config file or packaged name; by default from the shapes"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY VALUE", help="replace values of the config")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..tools.convert_catseg import convert_catseg

    convert_catseg(args.file, args.output, config=args.config, options=args.set)
