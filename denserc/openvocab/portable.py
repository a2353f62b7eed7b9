"""Portable model files: one safetensors file that holds a whole open-vocabulary model, half the size of a checkpoint.

Tensors: the model's state dict. Those of two or more dimensions are rounded to the stored precision. Vectors, scalars
and the whole text tower are stored so only where that is exact: the tower's fingerprint matches text embeddings to it.
Loading restores the dtype of the model, float32. Metadata: one JSON object under "denserc_model" (`PortableMetadata`).
"""

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode

from ..structures import CheckpointError, ConfigurationError, choose
from ..structures.metadata import json_mapping, typed_fields
from ..structures.tensor_files import (
    FileKind,
    TensorFile,
    read_header,
    read_tensor_file,
    require_metadata_digest,
    tensor_file_kind,
    write_tensor_file,
)
from .stored_config import parse_config
from .vocabulary import OpenVocabularyModel

ENTRY = "denserc_model"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
_TEXT = "text_tower."
_WHAT = "model checkpoint"


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
    write_tensor_file(path, tensors, {ENTRY: json.dumps(asdict(metadata))})


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
        return tensor_file_kind(path, _WHAT) is FileKind.SAFETENSORS and ENTRY in read_header(path, _WHAT)
    except CheckpointError:
        return False


def read_portable(path: str | Path) -> tuple[TensorFile, dict[str, Any]]:
    """The file with its tensors, in the stored precision, and its metadata, see `PortableMetadata`.

    Raises:
        CheckpointError: The file is damaged, of a newer format, or another kind of safetensors file.
    """
    file = read_tensor_file(path, _WHAT)
    if ENTRY not in file.metadata:
        what = "denserc.load reads a dense encoder" if "denserc" in file.metadata else "it lacks the metadata of one"
        raise CheckpointError(
            f"{path} is a safetensors file, but not a model of DenseRC: {what}. Expected is a file of `denserc export "
            "portable`, or model_final.pth of a training. An encoder goes to MODEL.ENCODER.CHECKPOINT, weights of a "
            "CLIP to MODEL.ENCODER.WEIGHTS."
        )
    where = f"The entry {ENTRY!r} in the metadata of {path}"
    values = json_mapping(file.metadata[ENTRY], where)
    version = values.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version}; this DenseRC reads version {FORMAT_VERSION}.")
    metadata = asdict(typed_fields(PortableMetadata, values, where))
    parse_config(metadata["config"], path)
    require_metadata_digest(path, _WHAT)
    return file, metadata


def without_folders(value: Any) -> Any:
    """Nested settings with the file's name in place of each absolute path."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
