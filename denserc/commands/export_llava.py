"""`denserc export llava`: a LLaVA of a language model and a dense encoder."""

from pathlib import Path

from .export_tower import add_tower_options
from .parsing import CommandParser

DESCRIPTION = """\
Join a language model and the encoder of a DenseRC checkpoint to a LlavaForConditionalGeneration folder with its
processor. The projector has random weights: train it by the two stages of docs/LLAVA.md. The language model is a folder
in Hugging Face's format, such as Vicuna's. It needs denserc[llava]; a process reads the folder after
`import denserc.mllm`."""

EXAMPLES = """
denserc export llava vicuna-7b-v1.5/ denserc.safetensors llava/
denserc export llava vicuna-7b-v1.5/ denserc.safetensors llava/ --feature dense --dtype bfloat16
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("export llava", DESCRIPTION, EXAMPLES)
    parser.add_argument("language_model", type=Path, help="a folder with a causal language model and its tokenizer")
    parser.add_argument("checkpoint", type=Path, help="a DenseRC checkpoint, denserc.safetensors")
    parser.add_argument("output", type=Path, help="the folder to write")
    add_tower_options(parser)
    parser.add_argument("--plain", action="store_true", help="a plain CLIPVisionModel as tower, for OpenAI-style CLIPs")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="type of all weights (default: the language model's)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the projector's initial weights (default: 0)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from detectron2.utils.logger import setup_logger

    from ..mllm import export_llava

    setup_logger(name="denserc")
    export_llava(
        args.language_model,
        args.checkpoint,
        args.output,
        feature=args.feature,
        image_size=args.image_size,
        plain=args.plain,
        dtype=args.dtype,
        seed=args.seed,
    )
    print(f"wrote {args.output}: LlavaForConditionalGeneration with its processor; its projector is not trained")
