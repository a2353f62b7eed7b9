"""`denserc convert clip`: a published encoder, or any CLIP, as a DenseRC checkpoint."""

from .choices import POSITION_RESIZE, UNGATED_CONSTRUCTIONS
from .parsing import CommandParser

DESCRIPTION = """\
Convert a published CLIPSelf or DeCLIP encoder, or any CLIP, to a DenseRC checkpoint, exactly or not at all. Every
format that MODEL.ENCODER.WEIGHTS takes is read. A file without a text tower takes it from --clip, the CLIP that it was
distilled from. Gated constructions have weights of their own, which `denserc distill` makes."""

EXAMPLES = """
denserc convert clip eva_vitb16_coco_clipself_proposals.pt clipself.safetensors --encoder EVA02-B-16 \\
    --construction clipself
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("convert clip", DESCRIPTION, EXAMPLES)
    parser.add_argument("file", help="published weights")
    parser.add_argument("output", help="the checkpoint to write, .safetensors")
    parser.add_argument("--encoder", required=True, help="open_clip's name, e.g. EVA02-B-16 or EVA02-L-14-336")
    parser.add_argument("--construction", required=True, choices=UNGATED_CONSTRUCTIONS, help="kind of dense features")
    parser.add_argument("--clip", default="", help="file or tag to take the text tower from, where the file has none")
    parser.add_argument(
        "--position-resize", default="bicubic", choices=POSITION_RESIZE, help="interpolation (default: bicubic)"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..construction import save_checkpoint
    from ..tools.convert_clip import convert_clip

    model = convert_clip(
        args.file,
        encoder=args.encoder,
        construction=args.construction,
        clip=args.clip,
        position_resize=args.position_resize,
    )
    save_checkpoint(args.output, model)
    print(f"wrote {args.output}: for MODEL.ENCODER.CHECKPOINT; text fingerprint {model.text.fingerprint()}")
