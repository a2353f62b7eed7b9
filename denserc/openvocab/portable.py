"""Portable model files: one safetensors file that holds a whole open-vocabulary model, half the size of a checkpoint.

Tensors: the model's state dict. Those of two or more dimensions are rounded to the stored precision. Vectors, scalars
and the whole text tower are stored so only where that is exact: the tower's fingerprint matches text embeddings to it.
Loading restores the dtype of the model, float32. Metadata: one JSON object under "denserc_model" (`PortableMetadata`).
"""

import json
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..structures import CheckpointError, ConfigurationError, atomic_path, choose
from .vocabulary import OpenVocabularyModel

ENTRY = "denserc_model"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
_TEXT = "text_tower."


class StoredPrecision(Enum):
    """Precision of the tensors in a portable file."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"  # every tensor as it is

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of PyTorch."""
        return getattr(torch, self.value)


@dataclass(frozen=True)
class PortableMetadata:
    """Description that a portable file includes; the first four as in a checkpoint.

    Args:
        encoder: Name of the architecture of the towers.
        construction: Construction of the dense encoder.
        position_resize: Resizing of position embeddings.
        text_fingerprint: Fingerprint of the text tower.
        config: Configuration as YAML, without the folders of the machine that wrote it.
        vocabulary: {"names": [...], "novel": [...]} to use until others are given; None for none.
        description: One sentence for users; "" for none.
        version: Version of the format.
    """

    encoder: str
    construction: dict
    position_resize: str
    text_fingerprint: str
    config: str
    vocabulary: dict | None = None
    description: str = ""
    version: int = FORMAT_VERSION


def save_portable(
    path: str | Path,
    model: OpenVocabularyModel,
    cfg: CfgNode | None = None,
    *,
    precision: StoredPrecision | str = StoredPrecision.FLOAT16,
    description: str = "",
) -> None:
    """Write a model with its configuration and its vocabulary, if it has one, to one file, whole or not at all.

    Args:
        path: Path of the .safetensors file; MODEL.WEIGHTS, denserc.load_model and denserc.Predictor read it.
        model: A model that was built from a configuration.
        cfg: Configuration of the model; None for the one in its metadata, which a loaded model has.
        precision: Precision of tensors with two or more dimensions.
        description: One sentence for users, which `denserc detect` prints.

    Raises:
        ConfigurationError: Another suffix, an unknown precision, or no configuration.
    """
    precision = choose(StoredPrecision, precision, "precision")
    if Path(path).suffix != SUFFIX:
        raise ConfigurationError(f"A portable model file is named *{SUFFIX}; got {path}.")
    described = dict(model.metadata)
    config = described.get("config") if cfg is None else cfg.dump()
    if config is None:
        raise ConfigurationError("The model has no configuration in its metadata: give the one that it was built from.")
    known = model.vocabulary
    metadata = PortableMetadata(
        encoder=described["encoder"],
        construction=described["construction"],
        position_resize=described.get("position_resize", "bicubic"),  # absent from older checkpoints
        text_fingerprint=described["text_fingerprint"],
        config=yaml.safe_dump(without_folders(yaml.safe_load(config))),
        vocabulary=None if known is None else {"names": list(known.names), "novel": sorted(known.novel)},
        description=description,
    )
    tensors = {key: stored(key, value, precision.dtype) for key, value in model.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={ENTRY: json.dumps(asdict(metadata))})


def stored(key: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor that a file holds for an entry of a state dict; see the head of this file."""
    value = value.detach().cpu().contiguous()
    if value.is_floating_point() and value.element_size() > dtype.itemsize:
        rounded = value.to(dtype)
        exact = torch.equal(rounded.to(value.dtype), value)
        may_round = value.ndim >= 2 and not key.startswith(_TEXT) and bool(torch.isfinite(rounded).all())
        if exact or may_round:
            return rounded
    return value.clone()  # safetensors refuses tensors that share memory


def is_portable(path: str | Path) -> bool:
    """True for a portable model of any version."""
    try:
        return ENTRY in _entries(path)
    except CheckpointError:
        return False


def read_portable(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a portable file, in the stored precision, and its metadata, see `PortableMetadata`.

    Raises:
        CheckpointError: The file is damaged, of a newer format, or another kind of safetensors file.
    """
    entries = _entries(path)
    if ENTRY not in entries:
        what = "denserc.load reads a dense encoder" if "denserc" in entries else "it lacks the metadata of one"
        raise CheckpointError(
            f"{path} is a safetensors file, but not a model of DenseRC: {what}. Expected is a file of `denserc export "
            "portable`, or model_final.pth of a training. An encoder goes to MODEL.ENCODER.CHECKPOINT, weights of a "
            "CLIP to MODEL.ENCODER.WEIGHTS."
        )
    return load_file(path), _checked(entries[ENTRY], path)


def _entries(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a safetensors file: {error}. Copy or write it anew."
        ) from error


def _checked(text: str, path: str | Path) -> dict[str, Any]:
    """The metadata as a mapping, all fields with values of the right types."""
    damaged = f"The metadata of {path} is damaged"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{damaged}: {error}. Copy or write the file anew.") from error
    version = values.get("version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version}; this DenseRC reads version {FORMAT_VERSION}.")
    expected = {field.name: field.type for field in fields(PortableMetadata)}
    wrong = [key for key, kind in expected.items() if key not in values or not isinstance(values[key], kind)]
    unknown = sorted(values.keys() - expected.keys())
    if wrong or unknown:
        raise CheckpointError(
            f"{damaged}: missing or of another type are {wrong}, unknown are {unknown}. Copy or write the file anew."
        )
    try:
        config = yaml.safe_load(values["config"])
    except yaml.YAMLError as error:
        raise CheckpointError(f"{damaged}: its configuration is not YAML ({error}).") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{damaged}: its configuration is not a mapping.")
    return values


def without_folders(value: Any) -> Any:
    """Nested settings with the file's name in place of each absolute path."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
