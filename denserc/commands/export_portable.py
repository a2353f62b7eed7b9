"""`denserc export portable`: a model as one safetensors file in half precision."""

from pathlib import Path

from .choices import STORED_PRECISIONS
from .parsing import CommandParser, listed

DESCRIPTION = """\
Write a model, its towers and its configuration to one safetensors file, half the size of the checkpoint. Tensors of
two or more dimensions are rounded; vectors and the text tower are not. MODEL.WEIGHTS, denserc.load_model and
denserc.Predictor read the file as they read model_final.pth, and restore float32."""

EXAMPLES = """
denserc export portable model_final.pth detector.safetensors
denserc export portable model_final.pth cups.safetensors --names "red cup, ball" --precision bfloat16
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("export portable", DESCRIPTION, EXAMPLES)
    parser.add_argument("model", help="checkpoint, such as output/.../model_final.pth")
    parser.add_argument("output", type=Path, help="file to write, .safetensors")
    parser.add_argument(
        "--precision",
        default="float16",
        choices=STORED_PRECISIONS,
        help="precision of tensors with two or more dimensions (default: float16)",
    )
    parser.add_argument("--names", default="", help="classes to find where a user gives none, with commas")
    parser.add_argument("--novel", default="", help="those of the classes that training has not seen")
    parser.add_argument("--description", default="", help="one sentence for users, which `denserc detect` prints")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Raises:
        CheckpointError: The model cannot be loaded.
        ConfigurationError: The output has another suffix.
        DataError: A novel name is not among the names.
    """
    args = parser().parse_args(arguments)

    from ..api import load_model
    from ..openvocab import save_portable
    from ..structures import Vocabulary

    model = load_model(args.model)
    if args.names:
        model.set_default_vocabulary(Vocabulary(listed(args.names), novel=listed(args.novel)))
    description = args.description or model.metadata.get("description", "")
    save_portable(args.output, model, precision=args.precision, description=description)
    print(f"wrote {args.output}: {args.output.stat().st_size / 1e6:.2f} MB")
