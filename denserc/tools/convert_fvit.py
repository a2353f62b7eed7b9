"""Published F-ViT detectors as checkpoints of ours, exactly or with the full list of what does not fit:

    python -m denserc.tools.convert_fvit fvit_eva_vitb16_ovcoco_clipself_proposals.pth fvit.pth \\
        --clip EVA02_CLIP_B_psz16_s8B.pt --construction clipself --classes ov_coco

A published file holds the image tower inside the detector but no text tower: it comes from the CLIP that the encoder
was distilled from, given by --clip as a file or as one of open_clip's tags. Nothing in the file says how its encoder
makes dense features, so --construction does: clipself for plain EVA-CLIP and CLIPSelf, declip for DeCLIP. The
configuration follows from the shapes of the four published ones and is printed; --config names another.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch.nn.functional import normalize

from ..config import get_denserc_config
from ..construction import CONSTRUCTIONS
from ..data.vocabulary.prompts import PLAIN_TEMPLATES
from ..data.vocabulary.published import VOCABULARIES, read_class_list, vocabulary
from ..data.vocabulary.text_embeddings import embed_names, save_text_embeddings
from ..detection.convert import convert_detector, write_detector
from ..encoders import read_weights
from ..structures import BACKGROUND, ConfigurationError, DataError, FingerprintMismatchError, TextEmbeddings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# (rows of class embeddings, width of the image tower) of the published detectors -> our configuration.
_PUBLISHED = {
    (66, 768): "ovcoco_vitb16",
    (66, 1024): "ovcoco_vitl14",
    (1204, 768): "ovlvis_vitb16",
    (1204, 1024): "ovlvis_vitl14",
}
UNGATED = tuple(name for name, choice in CONSTRUCTIONS.items() if not choice.num_gates)


def published_config(state: Mapping[str, torch.Tensor], source: str) -> Path:
    """The configuration of the published detector that has these shapes.

    Raises:
        ConfigurationError: none has.
    """
    classes = state.get("roi_head.bbox_head.all_embeddings", torch.empty(0, 0)).shape[-1]
    width = state.get("backbone.visual.cls_token", torch.empty(0)).shape[-1]
    if (classes, width) not in _PUBLISHED:
        known = "; ".join(f"{c} x {w}: {name}" for (c, w), name in _PUBLISHED.items())
        raise ConfigurationError(
            f"{source} has {classes} rows of class embeddings and an image tower of width {width}; the published "
            f"detectors have {known}. Name its configuration with --config."
        )
    return CONFIGS / f"{_PUBLISHED[classes, width]}.yaml"


def class_names(given: str) -> tuple[str, ...]:
    """The names of a published vocabulary, or of a file (see `read_class_list`)."""
    return vocabulary(given).names if given in VOCABULARIES else read_class_list(given)


def name_embeddings(vectors: torch.Tensor, names: tuple[str, ...], text_tower) -> TextEmbeddings:
    """The rows of a published file under their names, checked against the text tower's own idea of each name.

    Args:
        vectors: (C + 1, E), background last.
        names: C names in the order of the rows.
        text_tower: of the CLIP that the file was made with.

    Raises:
        DataError: another number of names than rows.
        FingerprintMismatchError: most rows lie nearest to another name than their own: the text tower is another
            CLIP's, or the names stand in another order.
    """
    names = (*names, BACKGROUND)
    if len(names) != len(vectors):
        raise DataError(
            f"The file has {len(vectors)} class embeddings, --classes gives {len(names)}, both with the background."
        )
    vectors = normalize(vectors.float(), dim=1)
    own = embed_names(text_tower, names, PLAIN_TEMPLATES).vectors
    cosines = vectors @ own.T  # (C + 1, C + 1)
    right = (cosines.argmax(dim=1) == torch.arange(len(names))).float().mean().item()
    print(f"class embeddings: {right:.1%} of the rows lie nearest to their own name among {len(names)}")
    if right < 0.5:
        raise FingerprintMismatchError(
            f"Only {right:.1%} of the {len(names)} class embeddings in the file lie nearest to their own name as the "
            f"text tower of --clip embeds it (mean cosine {cosines.diagonal().mean():.2f}): it is the text tower of "
            "another CLIP, or --classes gives the names in another order than the file has."
        )
    return TextEmbeddings(names, vectors, text_tower.fingerprint())


def detector_config(path: Path, clip: str, construction: str, options: list[str]) -> CfgNode:
    """The configuration in a file, over a CLIP and a construction."""
    cfg = get_denserc_config()
    cfg.merge_from_file(str(path))
    cfg.MODEL.ENCODER.CHECKPOINT, cfg.MODEL.ENCODER.WEIGHTS = "", clip
    cfg.MODEL.CONSTRUCTION.NAME = construction
    cfg.merge_from_list(options)
    return cfg


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a published detector, .pth")
    parser.add_argument("output", help="the checkpoint to write, .pth")
    parser.add_argument("--clip", required=True, help="the CLIP whose text tower is taken: a file or open_clip's tag")
    parser.add_argument("--construction", required=True, choices=UNGATED, help="of the dense features")
    parser.add_argument("--config", type=Path, help="of the detector; by default the published one of these shapes")
    parser.add_argument(
        "--classes", help="ov_coco, ov_lvis or a file of names: writes the file's class embeddings beside the output"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY VALUE", help="replace the configuration's values")
    args = parser.parse_args(arguments)

    state, source = read_weights(args.file), Path(args.file).name
    config = args.config or published_config(state, source)
    print(f"configuration: {config.name}{'' if args.config else ', from the shapes'}")
    cfg = detector_config(config, args.clip, args.construction, args.set)
    converted = convert_detector(state, cfg, source)
    print(f"read {len(state)} entries; left out knowingly: {len(converted.dropped)} (rotary tables, unused fc_cls)")
    print(
        f"image tower: {len(converted.changed)} of {converted.tower_size} tensors differ from those of {args.clip}"
        + ("" if converted.changed else ": a plain CLIP")
    )
    output = Path(args.output)
    if args.classes:
        embeddings = name_embeddings(converted.class_vectors, class_names(args.classes), converted.model.text_tower)
        beside = output.with_suffix(".text_embeddings.safetensors")
        save_text_embeddings(beside, embeddings)
        print(f"wrote {beside}: MODEL.VOCABULARY.EMBEDDINGS takes it")
    cfg.MODEL.ENCODER.WEIGHTS = Path(args.clip).name  # where it lay on this machine means nothing elsewhere
    write_detector(output, converted.model, cfg)
    print(f"wrote {output}: for denserc.detection.load_detector and for MODEL.WEIGHTS")


if __name__ == "__main__":
    main()
