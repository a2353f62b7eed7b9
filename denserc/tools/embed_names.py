"""Text embeddings of class names in a file, made by any encoder's text tower, for use without it or elsewhere:

    python -m denserc.tools.embed_names --checkpoint denserc.safetensors --data-sets ov_lvis_v1_val birds.yaml \
        --output lvis_and_birds.safetensors
    python -m denserc.tools.embed_names --encoder EVA02-B-16 --weights EVA02_CLIP_B_psz16_s8B.pt --names "owl, hen" \
        --templates plain --output birds.safetensors
    python -m denserc.tools.embed_names --checkpoint denserc.safetensors --compare coco_with_background.pt

"background" is added. The file names the text tower by its fingerprint, and a detector with another one refuses it
(MODEL.VOCABULARY.EMBEDDINGS). --compare embeds the names of a file that carries no fingerprint, such as the
originals', and says whether this tower made it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..construction import load_checkpoint
from ..data import dataset_vocabulary
from ..data.vocabulary.prompts import TEMPLATE_SETS, template_set
from ..data.vocabulary.published import read_class_list
from ..data.vocabulary.text_embeddings import TextEncoder, embed_names, load_text_embeddings, save_text_embeddings
from ..detection import load_detector
from ..encoders import build_clip
from ..structures import BACKGROUND, ConfigurationError, DenseRCError
from .region_entries import registered_names

_SAME = 0.99  # cosine from which two embeddings of a name are called the same; half precision changes the third digit


def text_tower(*, checkpoint: str = "", encoder: str = "", weights: str = "") -> TextEncoder:
    """The text tower of a DenseRC checkpoint, of a detector (.pth), or of a plain CLIP.

    Raises:
        ConfigurationError: neither a checkpoint nor an encoder is given, or both.
    """
    if bool(checkpoint) == bool(encoder):
        raise ConfigurationError("Give either --checkpoint, or --encoder with --weights.")
    if encoder:
        return build_clip(encoder, weights).text
    return load_detector(checkpoint).text_tower if checkpoint.endswith(".pth") else load_checkpoint(checkpoint).text


def names_of(data_sets: Sequence[str] = (), names: str = "", names_file: str = "") -> list[str]:
    """Every name once, in the order given: of data sets, of a list with commas, of a file."""
    found = [name for data_set in registered_names(data_sets) for name in dataset_vocabulary(data_set).names]
    found += [name.strip() for name in names.split(",") if name.strip()]
    found += read_class_list(names_file) if names_file else ()
    return [name for name in dict.fromkeys(found) if name != BACKGROUND]


def compare(tower: TextEncoder, path: str, templates: Sequence[str]) -> dict[str, float]:
    """{name: cosine between a file's embedding and the tower's}, the least first."""
    theirs = load_text_embeddings(path)
    ours = embed_names(tower, theirs.names, templates)
    if ours.vectors.shape[1] != theirs.vectors.shape[1]:
        raise ConfigurationError(
            f"{path} holds vectors of width {theirs.vectors.shape[1]}, this encoder makes {ours.vectors.shape[1]}."
        )
    cosines = (ours.vectors * theirs.vectors).sum(1).tolist()
    return dict(sorted(zip(theirs.names, cosines, strict=True), key=lambda pair: pair[1]))


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 on an error, and where compared embeddings are not this tower's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="", help="a denserc.safetensors, or a detector's .pth")
    parser.add_argument("--encoder", default="", help="open_clip's model name instead")
    parser.add_argument("--weights", default="", help="of the encoder: a file, or one of open_clip's tags")
    parser.add_argument("--data-sets", nargs="*", default=[], help="registered sets, or YAML descriptions")
    parser.add_argument("--names", default="", help="names with commas between them")
    parser.add_argument("--names-file", default="", help="a JSON list, or one name a line")
    parser.add_argument("--templates", choices=sorted(TEMPLATE_SETS), default="vild")
    parser.add_argument("--output", default="", help="a .safetensors file")
    parser.add_argument("--compare", default="", help="text embeddings to compare with this tower's")
    args = parser.parse_args(arguments)
    try:
        return _run(args)
    except DenseRCError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    names = names_of(args.data_sets, args.names, args.names_file)
    if bool(names) != bool(args.output) or not (names or args.compare):
        raise ConfigurationError("Give names (--data-sets, --names, --names-file) and --output, or --compare, or both.")
    if args.output and Path(args.output).suffix != ".safetensors":
        raise ConfigurationError(f"--output is a .safetensors file; got {args.output}.")
    tower = text_tower(checkpoint=args.checkpoint, encoder=args.encoder, weights=args.weights)
    templates = template_set(args.templates)
    if names:
        embeddings = embed_names(tower, [*names, BACKGROUND], templates)
        save_text_embeddings(args.output, embeddings)
        print(f"{args.output}: {len(names)} names and {BACKGROUND!r}, width {embeddings.vectors.shape[1]}, "
              f"templates {args.templates}, text tower {embeddings.fingerprint}")  # fmt: skip
    if not args.compare:
        return 0
    cosines = compare(tower, args.compare, templates)
    least, lowest = next(iter(cosines.items()))
    same = lowest >= _SAME
    verdict = "made by this text tower" if same else "NOT made by this text tower with these templates"
    print(f"{args.compare}: {verdict}; "
          f"least cosine {lowest:.4f} ({least!r}), mean {sum(cosines.values()) / len(cosines):.4f}")  # fmt: skip
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
