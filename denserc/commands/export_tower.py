"""`denserc export vision-tower`: a dense encoder as a vision tower of LLaVA."""

from pathlib import Path

from .choices import VISION_FEATURES
from .parsing import CommandParser

DESCRIPTION = """\
Export the encoder of a DenseRC checkpoint as a folder of Hugging Face's transformers: config.json, model.safetensors,
preprocessor_config.json. An OpenAI-style CLIP with the feature "penultimate" becomes a plain CLIPVisionModel, which
LLaVA's own code reads as mm_vision_tower without DenseRC. All others become the type denserc_vision, which a process
reads after `import denserc.mllm`. It needs denserc[llava]; docs/LLAVA.md describes the features."""

EXAMPLES = """
denserc export vision-tower denserc.safetensors tower/
denserc export vision-tower denserc.safetensors tower/ --feature joined --image-size 448
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("export vision-tower", DESCRIPTION, EXAMPLES)
    parser.add_argument("checkpoint", type=Path, help="a DenseRC checkpoint, denserc.safetensors")
    parser.add_argument("output", type=Path, help="the folder to write")
    add_tower_options(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--plain", action="store_true", help="insist on a plain CLIPVisionModel")
    kind.add_argument("--registered", action="store_true", help="insist on the type denserc_vision")
    return parser


def add_tower_options(parser: CommandParser) -> None:
    """Options of a vision tower, shared with `denserc export llava`."""
    parser.add_argument(
        "--feature", default="penultimate", choices=VISION_FEATURES, help="output for the projector (penultimate)"
    )
    parser.add_argument("--image-size", type=int, help="side of the square input (default: the CLIP's own)")


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from detectron2.utils.logger import setup_logger

    from ..mllm import export_vision_tower

    setup_logger(name="denserc")
    plain = True if args.plain else False if args.registered else None
    tower = export_vision_tower(
        args.checkpoint, args.output, feature=args.feature, image_size=args.image_size, plain=plain
    )
    print(f"wrote {args.output}: {type(tower).__name__}, {tower.config.hidden_size} channels")
