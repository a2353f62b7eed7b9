"""`denserc export`: a detector as one program whose text embeddings are an input."""

from pathlib import Path

from .parsing import CommandParser, listed

DESCRIPTION = """\
Export a detector as one program of torch.export whose text embeddings are an input. It needs torch and torchvision,
neither Detectron2 nor DenseRC. docs/EXPORT.md describes its inputs and outputs. `denserc export vision-tower` and
`denserc export llava` export an encoder for LLaVA."""

EXAMPLES = """
denserc export model_final.pth detector.pt2 --side 640
denserc export model_final.pth detector.pt2 --names "red cup, ball"
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("export", DESCRIPTION, EXAMPLES)
    parser.add_argument("detector", help="a detector checkpoint")
    parser.add_argument("output", type=Path, help="the program to write, .pt2")
    parser.add_argument("--side", type=int, help="side of the square input, pixels (default: INPUT.SIZE)")
    parser.add_argument("--names", default="", help="also write the text embeddings of these names, with commas")
    parser.add_argument("--device", default="cpu", help="device that the program will run on (default: cpu)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..tools.export import export

    export(args.detector, args.output, side=args.side, names=listed(args.names), device=args.device)
