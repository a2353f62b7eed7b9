"""The DenseRC checkpoint: ONE safetensors file from which everything downstream is built.

Tensors: "visual.*" and "text.*" in open_clip's names, "logit_scale", and "gates.*" where the
construction has gates. Metadata: one JSON object under "denserc" (see `Metadata`), and the digests of
`structures.tensor_files`.
"""

import json
import logging
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..encoders import Clip, PositionResize, TextTower, build_architecture, load_exactly
from ..structures import CheckpointError, ConfigurationError, FingerprintMismatchError, PixelStatistics, choose
from ..structures.metadata import json_mapping, typed_fields
from ..structures.tensor_files import read_header, read_tensor_file, require_metadata_digest, write_tensor_file
from .choices import Construction
from .dense import DenseEncoder

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
ENTRY = "denserc"
_WHAT = "DenseRC checkpoint"


@dataclass
class DenseModel:
    """A dense encoder with the text tower of the same CLIP.

    Args:
        encoder: Images -> dense features.
        text: Prompts -> embeddings in the same space.
        logit_scale: CLIP's learned inverse temperature.
        extra: Notes of the producer, such as schedule, seed and data, as plain JSON values.
    """

    encoder: DenseEncoder
    text: TextTower
    logit_scale: float
    extra: dict = field(default_factory=dict)


@dataclass
class Metadata:
    """Description that a checkpoint includes; nothing is guessed from its name."""

    version: int
    encoder: str
    construction: dict
    pixel_mean: list[float]
    pixel_std: list[float]
    patch_size: int
    text_fingerprint: str
    extra: dict
    position_resize: str = PositionResize.BICUBIC.value  # absent from older files


def save_checkpoint(path: str | Path, model: DenseModel) -> None:
    """Write a model to one file, atomically: a crash leaves the old file or none, never a partial one."""
    encoder, pixels = model.encoder, model.encoder.tower.pixels
    metadata = Metadata(
        version=FORMAT_VERSION,
        encoder=encoder.tower.name,
        construction=encoder.construction.to_dict(),
        pixel_mean=list(pixels.mean),
        pixel_std=list(pixels.std),
        patch_size=encoder.patch_size,
        text_fingerprint=model.text.fingerprint(),
        extra=model.extra,
        position_resize=encoder.tower.position_resize.value,
    )
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in _state(model).items()}
    tensors["logit_scale"] = torch.tensor(model.logit_scale).log()
    write_tensor_file(path, tensors, {ENTRY: json.dumps(asdict(metadata))})


def read_metadata(path: str | Path) -> Metadata:
    """Read the description of a checkpoint without loading its tensors.

    Raises:
        CheckpointError: The file is absent, damaged, no DenseRC checkpoint, or of a newer format; the message names the
            entry of the metadata.
    """
    text = read_header(path, _WHAT, advice="projects/Distillation/train_net.py makes one.").get(ENTRY)
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file, but no DenseRC checkpoint: it lacks the 'denserc' metadata. Plain CLIP "
            f"weights go to MODEL.ENCODER.WEIGHTS, not to MODEL.ENCODER.CHECKPOINT."
        )
    where = f"The entry {ENTRY!r} in the metadata of {path}"
    values = json_mapping(text, where)
    version = values.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version}; this DenseRC reads version {FORMAT_VERSION}.")
    metadata = typed_fields(Metadata, values, where)
    require_metadata_digest(path, _WHAT)
    return metadata


def load_checkpoint(path: str | Path) -> DenseModel:
    """Rebuild the model of a checkpoint from its path, exactly.

    Raises:
        CheckpointError: See `read_metadata`; or tensors are not finite, or not those that were written.
        WeightsMismatchError: The tensors do not fit the named encoder and construction.
        FingerprintMismatchError: The text tower is not the one that the metadata names.
    """
    metadata = read_metadata(path)
    if metadata.extra.get("encoder_weights") == "RANDOM":
        logger.warning("!!! %s was made from an encoder with RANDOM WEIGHTS: its features mean nothing. !!!", path)
    where = f"The entry {ENTRY!r} in the metadata of {path}"
    clip, encoder = build_described(metadata.encoder, metadata.construction, metadata.position_resize, where)
    if encoder.patch_size != metadata.patch_size:
        raise CheckpointError(
            f"{where}: patch_size is {metadata.patch_size}, but {metadata.encoder} has {encoder.patch_size}."
        )
    try:
        clip.image.pixels = PixelStatistics(metadata.pixel_mean, metadata.pixel_std)
    except ConfigurationError as error:
        raise CheckpointError(f"{where}: pixel_mean or pixel_std does not fit: {error}") from error
    file = read_tensor_file(path, _WHAT)
    tensors = dict(file.content)
    scale = _inverse_temperature(tensors.pop("logit_scale", None), path)
    model = DenseModel(encoder, clip.text, scale, metadata.extra)
    load_exactly(_Parts(model), tensors, str(path), "The file is damaged or was written by another version.")
    file.require_intact()
    if clip.text.fingerprint() != metadata.text_fingerprint:
        raise FingerprintMismatchError(
            f"{path} says that its text tower has the fingerprint {metadata.text_fingerprint}, but the tower in it has "
            f"{clip.text.fingerprint()}. The file was changed by hand, or its tokenizer was."
        )
    return model


def build_described(encoder: str, construction: dict, position_resize: str, where: str) -> tuple[Clip, DenseEncoder]:
    """The towers that a file's metadata describe, without weights.

    Args:
        encoder: Name of the architecture.
        construction: Values of `Construction.to_dict`.
        position_resize: Value of PositionResize.
        where: File and entry, for messages.

    Raises:
        CheckpointError: A value is none that exists; the message names the file and the field.
    """
    field_name = "encoder"
    try:
        clip = build_architecture(encoder)
        field_name = "position_resize"
        clip.image.position_resize = choose(PositionResize, position_resize, field_name)
        field_name = "construction"
        dense = DenseEncoder(clip.image, Construction.from_dict(construction))
    except ConfigurationError as error:
        raise CheckpointError(f"{where}: {field_name} does not fit: {error}") from error
    return clip, dense


def _inverse_temperature(logit_scale: torch.Tensor | None, path: str | Path) -> float:
    """exp(logit_scale).

    Raises:
        CheckpointError: It is absent, no number, or out of range.
    """
    if logit_scale is None:
        raise CheckpointError(
            f"{path} lacks the tensor logit_scale, CLIP's inverse temperature. The file is damaged or was changed by "
            "hand: write it again."
        )
    is_scalar = logit_scale.shape == () and logit_scale.is_floating_point()
    scale = float(logit_scale.double().exp()) if is_scalar else math.nan
    if not 0 < scale < math.inf:
        given = logit_scale.item() if is_scalar else f"{logit_scale.dtype} {tuple(logit_scale.shape)}"
        raise CheckpointError(
            f"The tensor logit_scale of {path} is {given}; expected is one floating number whose exponential is finite "
            "and above 0."
        )
    return float(logit_scale.exp())


class _Parts(torch.nn.Module):
    """A model's parts under the names that a checkpoint uses."""

    def __init__(self, model: DenseModel):
        super().__init__()
        self.visual = model.encoder.tower.visual
        self.text = model.text.text
        self.gates = model.encoder.gates


def _state(model: DenseModel) -> dict[str, torch.Tensor]:
    return _Parts(model).state_dict()
