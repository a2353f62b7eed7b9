"""Text towers, class names, and whether a file of text embeddings was made by a tower (`denserc embed`)."""

from collections.abc import Sequence

from ..construction import load_checkpoint
from ..data import dataset_vocabulary
from ..data.vocabulary.published import read_class_list
from ..data.vocabulary.text_embeddings import TextEncoder, embed_names, load_text_embeddings
from ..detection import load_detector
from ..encoders import build_clip
from ..structures import BACKGROUND, ConfigurationError
from .region_entries import registered_names

SAME = 0.99  # cosine from which two embeddings of a name are called the same; half precision changes the third digit


def text_tower(*, checkpoint: str = "", encoder: str = "", weights: str = "") -> TextEncoder:
    """The text tower of a DenseRC checkpoint, of a detector (.pth), or of a plain CLIP.

    Raises:
        ConfigurationError: Neither a checkpoint nor an encoder is given, or both.
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
