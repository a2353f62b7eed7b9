"""Published F-ViT detectors as checkpoints of ours (`denserc convert fvit`).

A published file holds the image tower inside the detector but no text tower: that comes from the CLIP that the encoder
was distilled from. The config follows from the shapes of the four published detectors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch.nn.functional import normalize

from ..config import read_config
from ..data.vocabulary.prompts import PLAIN_TEMPLATES
from ..data.vocabulary.published import VOCABULARIES, read_class_list, vocabulary
from ..data.vocabulary.text_embeddings import embed_names, save_text_embeddings
from ..detection.convert import convert_detector
from ..encoders import read_weights
from ..model_zoo import find_config_file
from ..openvocab.checkpoint import write_model
from ..structures import BACKGROUND, ConfigurationError, DataError, FingerprintMismatchError, TextEmbeddings

# (rows of class embeddings, width of the image tower) of the published detectors -> our configuration.
_PUBLISHED = {
    (66, 768): "ovcoco_vitb16",
    (66, 1024): "ovcoco_vitl14",
    (1204, 768): "ovlvis_vitb16",
    (1204, 1024): "ovlvis_vitl14",
}


def published_config(state: Mapping[str, torch.Tensor], source: str) -> str:
    """Name of the packaged config of the published detector that has these shapes.

    Raises:
        ConfigurationError: None has.
    """
    classes = state.get("roi_head.bbox_head.all_embeddings", torch.empty(0, 0)).shape[-1]
    width = state.get("backbone.visual.cls_token", torch.empty(0)).shape[-1]
    if (classes, width) not in _PUBLISHED:
        known = "; ".join(f"{c} x {w}: {name}" for (c, w), name in _PUBLISHED.items())
        raise ConfigurationError(
            f"{source} has {classes} rows of class embeddings and an image tower of width {width}; the published "
            f"detectors have {known}. Name its configuration with --config."
        )
    return _PUBLISHED[classes, width]


def class_names(given: str) -> tuple[str, ...]:
    """The names of a published vocabulary, or of a file (see `read_class_list`)."""
    return vocabulary(given).names if given in VOCABULARIES else read_class_list(given)


def name_embeddings(vectors: torch.Tensor, names: tuple[str, ...], text_tower) -> TextEmbeddings:
    """The rows of a published file under their names, checked against the text tower's embedding of each name.

    Args:
        vectors: (C + 1, E), background last.
        names: C names in the order of the rows.
        text_tower: Text tower of the CLIP that the file was made with.

    Raises:
        DataError: Another number of names than rows.
        FingerprintMismatchError: Most rows are nearest to another name than their own: the text tower is another
            CLIP's, or the names have another order.
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


def detector_config(path: str, clip: str, construction: str, options: Sequence[str]) -> CfgNode:
    """The configuration in a file, over a CLIP and a construction."""
    encoder = ["MODEL.ENCODER.CHECKPOINT", "", "MODEL.ENCODER.WEIGHTS", clip, "MODEL.CONSTRUCTION.NAME", construction]
    cfg = read_config(path, [*encoder, *options])
    cfg.defrost()
    return cfg


def convert_fvit(
    file: str | Path,
    output: str | Path,
    *,
    clip: str,
    construction: str,
    config: str = "",
    classes: str | None = None,
    options: Sequence[str] = (),
) -> None:
    """Convert a published detector, print what was read and write the checkpoint.

    Args:
        file: A published detector, .pth.
        output: The checkpoint to write, .pth.
        clip: File or tag of the CLIP whose text tower is taken.
        construction: One of CONSTRUCTIONS without gates.
        config: File or packaged name; "": the published one of these shapes.
        classes: See `class_names`; the class embeddings of the file are then written beside the output.
        options: Config keys and values in turn.

    Raises:
        ConfigurationError: No config is known for these shapes.
        DataError, FingerprintMismatchError: See `name_embeddings`.
        WeightsMismatchError: The weights do not fit the configuration.
    """
    state, source = read_weights(file), Path(file).name
    path = find_config_file(config or published_config(state, source))
    print(f"configuration: {Path(path).name}{'' if config else ', from the shapes'}")
    cfg = detector_config(path, clip, construction, options)
    converted = convert_detector(state, cfg, source)
    print(f"read {len(state)} entries; left out knowingly: {len(converted.dropped)} (rotary tables, unused fc_cls)")
    print(
        f"image tower: {len(converted.changed)} of {converted.tower_size} tensors differ from those of {clip}"
        + ("" if converted.changed else ": a plain CLIP")
    )
    output = Path(output)
    if classes:
        embeddings = name_embeddings(converted.class_vectors, class_names(classes), converted.model.text_tower)
        beside = output.with_suffix(".text_embeddings.safetensors")
        save_text_embeddings(beside, embeddings)
        print(f"wrote {beside}: MODEL.VOCABULARY.EMBEDDINGS takes it")
    cfg.MODEL.ENCODER.WEIGHTS = Path(clip).name  # where it lay on this machine means nothing elsewhere
    write_model(output, converted.model, cfg)
    print(f"wrote {output}: for denserc.detection.load_detector and for MODEL.WEIGHTS")
