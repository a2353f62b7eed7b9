"""The DenseRC checkpoint: ONE safetensors file from which everything downstream is built.

Tensors: "visual.*" and "text.*" in open_clip's names, "logit_scale", and "gates.*" where the
construction has gates. Metadata: one JSON object under "denserc" (see `Metadata`).
"""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..encoders import PositionResize, TextTower, build_architecture, load_exactly
from ..structures import CheckpointError, FingerprintMismatchError, PixelStatistics, atomic_path, choose
from .choices import Construction
from .dense import DenseEncoder

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1


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
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"denserc": json.dumps(asdict(metadata))})


def read_metadata(path: str | Path) -> Metadata:
    """Read the description of a checkpoint without loading its tensors.

    Raises:
        CheckpointError: The file is absent, no DenseRC checkpoint, or of a newer format.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"There is no DenseRC checkpoint at {path}. projects/Distillation/train_net.py makes one."
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("denserc")
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file ({error}); a DenseRC checkpoint was expected.") from error
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file, but no DenseRC checkpoint: it lacks the 'denserc' metadata. Plain CLIP "
            f"weights go to MODEL.ENCODER.WEIGHTS, not to MODEL.ENCODER.CHECKPOINT."
        )
    values = json.loads(text)
    if values.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {values.get('version')}; this DenseRC reads version {FORMAT_VERSION}."
        )
    return Metadata(**values)


def load_checkpoint(path: str | Path) -> DenseModel:
    """Rebuild the model of a checkpoint from its path, exactly.

    Raises:
        CheckpointError: See `read_metadata`.
        WeightsMismatchError: The tensors do not fit the named encoder and construction.
        FingerprintMismatchError: The text tower is not the one that the metadata names.
    """
    metadata = read_metadata(path)
    if metadata.extra.get("encoder_weights") == "RANDOM":
        logger.warning("!!! %s was made from an encoder with RANDOM WEIGHTS: its features mean nothing. !!!", path)
    clip = build_architecture(metadata.encoder)
    clip.image.pixels = PixelStatistics(metadata.pixel_mean, metadata.pixel_std)
    clip.image.position_resize = choose(PositionResize, metadata.position_resize, f"position_resize of {path}")
    encoder = DenseEncoder(clip.image, Construction.from_dict(metadata.construction))
    tensors = load_file(path)
    scale = tensors.pop("logit_scale", torch.tensor(clip.logit_scale).log())
    model = DenseModel(encoder, clip.text, float(scale.exp()), metadata.extra)
    load_exactly(_Parts(model), tensors, str(path), "The file is damaged or was written by another version.")
    if clip.text.fingerprint() != metadata.text_fingerprint:
        raise FingerprintMismatchError(
            f"{path} says that its text tower has the fingerprint {metadata.text_fingerprint}, but the tower in it has "
            f"{clip.text.fingerprint()}. The file was changed by hand, or its tokenizer was."
        )
    return model


class _Parts(torch.nn.Module):
    """A model's parts under the names that a checkpoint uses."""

    def __init__(self, model: DenseModel):
        super().__init__()
        self.visual = model.encoder.tower.visual
        self.text = model.text.text
        self.gates = model.encoder.gates


def _state(model: DenseModel) -> dict[str, torch.Tensor]:
    return _Parts(model).state_dict()
