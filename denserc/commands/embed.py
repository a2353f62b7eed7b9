"""`denserc embed`: text embeddings of class names in a file."""

from pathlib import Path

from .choices import TEMPLATES
from .parsing import CommandParser

DESCRIPTION = """\
Write text embeddings of class names, made by the text tower of any encoder, for use without it or elsewhere.
"background" is added. The file names the text tower by its fingerprint, and a detector with another one refuses it
(MODEL.VOCABULARY.EMBEDDINGS). --compare embeds the names of a file without a fingerprint, and checks whether this tower
made it; the command then ends with 1 if not."""

EXAMPLES = """
denserc embed --checkpoint denserc.safetensors --data-sets ov_lvis_v1_val birds.yaml --output lvis_and_birds.safetensors
denserc embed --encoder EVA02-B-16 --weights EVA02_CLIP_B_psz16_s8B.pt --names "owl, hen" --templates plain \\
    --output birds.safetensors
denserc embed --checkpoint denserc.safetensors --compare coco_with_background.pt
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("embed", DESCRIPTION, EXAMPLES)
    parser.add_argument("--checkpoint", default="", metavar="FILE", help="a denserc.safetensors, or a detector's .pth")
    parser.add_argument("--encoder", default="", help="open_clip's model name instead")
    parser.add_argument("--weights", default="", help="weights of --encoder: a file, or one of open_clip's tags")
    parser.add_argument("--data-sets", nargs="*", default=[], metavar="SET", help="registered sets, or descriptions")
    parser.add_argument("--names", default="", help="names, with commas")
    parser.add_argument("--names-file", default="", metavar="FILE", help="a JSON list, or one name per line")
    parser.add_argument("--templates", choices=TEMPLATES, default="vild", help="prompts (default: vild)")
    parser.add_argument("--output", default="", metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--compare", default="", metavar="FILE", help="text embeddings to compare with this tower's")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where compared embeddings are not this tower's."""
    args = parser().parse_args(arguments)

    from ..data.vocabulary.prompts import template_set
    from ..data.vocabulary.text_embeddings import embed_names, save_text_embeddings
    from ..data.vocabulary.texts import same_texts, warn_of_cut_texts, warn_of_same_texts
    from ..structures import BACKGROUND, ConfigurationError
    from ..tools.embed_names import SAME, compare, names_of, text_tower

    names = names_of(args.data_sets, args.names, args.names_file)
    if bool(names) != bool(args.output) or not (names or args.compare):
        raise ConfigurationError("Give names (--data-sets, --names, --names-file) and --output, or --compare, or both.")
    if args.output and Path(args.output).suffix != ".safetensors":
        raise ConfigurationError(f"--output is a .safetensors file; got {args.output}.")
    tower = text_tower(checkpoint=args.checkpoint, encoder=args.encoder, weights=args.weights)
    templates = template_set(args.templates)
    if names:
        names.append(BACKGROUND)
        embeddings = embed_names(tower, names, templates)
        warn_of_same_texts(same_texts(names, tower))
        warn_of_cut_texts(names, templates, tower)
        save_text_embeddings(args.output, embeddings)
        print(f"{args.output}: {len(names) - 1} names and {BACKGROUND!r}, width {embeddings.vectors.shape[1]}, "
              f"templates {args.templates}, text tower {embeddings.fingerprint}")  # fmt: skip
    if not args.compare:
        return 0
    cosines = compare(tower, args.compare, templates)
    least, lowest = next(iter(cosines.items()))
    same = lowest >= SAME
    verdict = "made by this text tower" if same else "NOT made by this text tower with these templates"
    print(f"{args.compare}: {verdict}; "
          f"least cosine {lowest:.4f} ({least!r}), mean {sum(cosines.values()) / len(cosines):.4f}")  # fmt: skip
    return 0 if same else 1
