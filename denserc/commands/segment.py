"""`denserc segment`: pixels of photos labeled by words, with dense features only."""

from pathlib import Path

from .parsing import CommandParser

DESCRIPTION = """\
Label the pixels of pictures by words, with the dense features of any encoder and nothing trained. Writes
labels/ENCODER/NAME.png (values are classes in the order of classes.json; the value after them is background),
overlays/ENCODER/NAME.png, and the page segmentation.png and .html: picture, ground truth, each encoder."""

EXAMPLES = """
denserc segment --images photos/ --names "cat, sofa, wall" --output output/seg \\
    --encoder ViT-B-16-quickgelu --weights openai --construction declip_csa
denserc segment --data-set ade20k_150_test_sem_seg --output output/seg \\
    --checkpoint DenseRC=a/denserc.safetensors CLIPSelf=b/denserc.safetensors
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("segment", DESCRIPTION, EXAMPLES)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", help="an image, or a folder of images")
    source.add_argument("--data-set", help="a registered semantic set, or a YAML description of your own")
    parser.add_argument("--names", default="", help='classes, with commas; synonyms with "/": "couch/sofa, wall"')
    parser.add_argument("--novel", default="", help="those of --names that are marked as novel")
    parser.add_argument("--background", action="store_true", help='with --names: prompt "background" too')
    parser.add_argument("--threshold", type=float, default=-1.0, help="probability below which a pixel is background")
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--checkpoint", nargs="+", metavar="[TITLE=]FILE", help="denserc.safetensors of encoders")
    encoder.add_argument("--encoder", help="open_clip's name of a CLIP, e.g. ViT-B-16-quickgelu")
    parser.add_argument("--weights", default="", help="with --encoder: a file, or one of open_clip's tags")
    parser.add_argument(
        "--construction", default="denserc", help="with --encoder: form of the dense features (default: denserc)"
    )
    parser.add_argument(
        "--protocol", default="declip", help="sizes, windows and names: declip, sclip, whole_image, ..."
    )
    parser.add_argument("--short-side", type=int, default=0, help="in place of the protocol's, pixels")
    parser.add_argument("--templates", default="openai", help="prompt templates: openai (80), vild, plain, catseg")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--number", type=int, default=0, help="pictures, evenly spread; 0: all (default: 0)")
    parser.add_argument("--page", type=int, default=12, help="pictures on the page, at most (default: 12)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..tools.segment import run

    run(args)
