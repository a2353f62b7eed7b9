"""`denserc convert fvit`: a published F-ViT detector as a checkpoint of ours."""

from .choices import UNGATED_CONSTRUCTIONS
from .parsing import CommandParser

DESCRIPTION = """\
Convert a published F-ViT detector, exactly or with the full list of what does not fit. A published file holds no text
tower: --clip names the CLIP that its encoder was distilled from. --construction is the form of the encoder's dense
features: clipself for plain EVA-CLIP and CLIPSelf, declip for DeCLIP. The config follows from the shapes of the four
published detectors and is printed; --config names another."""

EXAMPLES = """
denserc convert fvit fvit_eva_vitb16_ovcoco_clipself_proposals.pth fvit.pth --clip EVA02_CLIP_B_psz16_s8B.pt \\
    --construction clipself --classes ov_coco
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("convert fvit", DESCRIPTION, EXAMPLES)
    parser.add_argument("file", help="a published detector, .pth")
    parser.add_argument("output", help="the checkpoint to write, .pth")
    parser.add_argument(
        "--clip", required=True, help="CLIP whose text tower is taken: a file or one of open_clip's tags"
    )
    parser.add_argument("--construction", required=True, choices=UNGATED_CONSTRUCTIONS, help="kind of dense features")
    parser.add_argument(
        "--config", default="", metavar="FILE", help="config file or packaged name; by default from the shapes"
    )
    parser.add_argument(
        "--classes", help="ov_coco, ov_lvis or a file of names: writes the file's class embeddings beside the output"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY VALUE", help="replace values of the config")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..tools.convert_fvit import convert_fvit

    convert_fvit(
        args.file,
        args.output,
        clip=args.clip,
        construction=args.construction,
        config=args.config,
        classes=args.classes,
        options=args.set,
    )
