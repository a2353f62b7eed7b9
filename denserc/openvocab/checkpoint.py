"""Checkpoints of a meta-architecture: one file that includes the frozen towers and loads exactly or not at all.

A file is Detectron2's (model, optimizer, scheduler, iteration) with one more entry, "denserc" ("fvit" in files of
version 0.1): the encoder's name, its construction, the text tower's fingerprint and the configuration. The model is
built from only its path. The vocabulary is not included, because it is not a weight. The two frozen towers make the
file larger than the trained part (EVA02-B-16: 0.6 GB of 0.8 GB); in return a model cannot run over another encoder
than it was trained on. `portable` writes the same model in half the size, as safetensors; `read_checkpoint` reads both.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.utils import comm

from ..construction import DenseModel, build_dense_model
from ..construction.checkpoint import build_described
from ..encoders import load_exactly
from ..engine import TrainingCheckpointer
from ..engine.sharding import place
from ..structures import (
    CheckpointError,
    ConfigurationError,
    DataError,
    FingerprintMismatchError,
    Key,
    Vocabulary,
    write_atomically,
)
from ..structures.metadata import in_words, is_of
from ..structures.records import short
from ..structures.tensor_files import FileKind, TensorFile, read_tensor_file, tensor_file_kind
from .portable import read_portable
from .registry import registered
from .stored_config import merge_stored_config, stored_config
from .vocabulary import OpenVocabularyModel

logger = logging.getLogger(__name__)

METADATA = "denserc"
LEGACY_METADATA = "fvit"
_OF_FILE = ("config", "vocabulary", "description", "version")  # metadata that does not describe the towers
_TYPES = {
    "encoder": str,
    "construction": dict,
    "position_resize": str,
    "text_fingerprint": str,
    "config": str,
    "vocabulary": dict | None,
    "description": str,
}
_WHAT = "model checkpoint"


def encoder_metadata(model: DenseModel) -> dict:
    """Description of the frozen towers in a checkpoint; plain JSON values."""
    return {
        "encoder": model.encoder.tower.name,
        "construction": model.encoder.construction.to_dict(),
        "position_resize": model.encoder.tower.position_resize.value,
        "text_fingerprint": model.text.fingerprint(),
    }


def read_checkpoint(path: str | Path) -> dict:
    """The content of a model checkpoint or a portable file, on the CPU; its metadata is the entry METADATA.

    Tensors are compared with the digests of the file when a model loads them.

    Raises:
        CheckpointError: The file is absent, damaged, or was not written by this package; the message names the entry.
    """
    return _read(path)[1]


def _read(path: str | Path) -> tuple[TensorFile, dict]:
    """A file and its content, as of `read_checkpoint`."""
    if tensor_file_kind(path, _WHAT, advice="Correct MODEL.WEIGHTS.") is FileKind.SAFETENSORS:
        file, metadata = read_portable(path)
        return file, {"model": file.content, METADATA: metadata}
    file = read_tensor_file(path, _WHAT)
    content = file.content
    if isinstance(content, dict) and LEGACY_METADATA in content:
        content[METADATA] = content.pop(LEGACY_METADATA)
    if not isinstance(content, dict) or not {"model", METADATA} <= content.keys():
        raise CheckpointError(
            f"{path} is not a model checkpoint of DenseRC: it needs the entries 'model' and {METADATA!r}. An encoder "
            "goes to MODEL.ENCODER.CHECKPOINT or MODEL.ENCODER.WEIGHTS instead of MODEL.WEIGHTS."
        )
    weights, metadata = content["model"], content[METADATA]
    for name, value in (("model", weights), (METADATA, metadata)):
        if not isinstance(value, Mapping):
            raise CheckpointError(f"The entry {name!r} of {path} is {short(value)}, expected is a mapping. {_REMEDY}")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"The entry 'model' of {path} holds {short(value)} under {short(key)}, expected are tensors under "
                f"names. {_REMEDY}"
            )
    for key, expected in _TYPES.items():
        if key in metadata and not is_of(metadata[key], expected):
            raise CheckpointError(
                f"The entry {key!r} of {METADATA!r} in {path} is {short(metadata[key])}, expected is "
                f"{in_words(expected)}. {_REMEDY}"
            )
    return file, content


_REMEDY = "The file is damaged or was changed by hand: copy or write it again."


def _entry(metadata: dict, key: str, path: str | Path) -> Any:
    """An entry of a file's metadata.

    Raises:
        CheckpointError: It is absent.
    """
    if key not in metadata:
        raise CheckpointError(f"The metadata ({METADATA!r}) in {path} lack the entry {key!r}. {_REMEDY}")
    return metadata[key]


def build_towers(cfg: CfgNode) -> tuple[DenseModel, dict]:
    """The towers that the checkpoint in MODEL.WEIGHTS describes, otherwise those of MODEL.ENCODER.

    The weights of the former are loaded with the model's.

    Returns:
        The towers and their metadata.

    Raises:
        CheckpointError: The file is not a model checkpoint, or describes towers that do not exist.
    """
    path = cfg.MODEL.WEIGHTS
    if not path:
        model = build_dense_model(cfg)
        return model, encoder_metadata(model)
    given = read_checkpoint(path)[METADATA]
    metadata = {key: value for key, value in given.items() if key not in _OF_FILE}
    if cfg.MODEL.ENCODER.CHECKPOINT:
        logger.warning(
            "The model %s includes its own encoder; MODEL.ENCODER.CHECKPOINT = %s is not read.",
            path,
            cfg.MODEL.ENCODER.CHECKPOINT,
        )
    clip, encoder = build_described(
        _entry(metadata, "encoder", path),
        _entry(metadata, "construction", path),
        metadata.get("position_resize", "bicubic"),  # absent from older files
        f"The metadata ({METADATA!r}) in {path}",
    )
    return DenseModel(encoder, clip.text, clip.logit_scale), metadata


_FILE = "__file__"  # entry of a loaded checkpoint: the TensorFile that it was read from


class ModelCheckpointer(TrainingCheckpointer):
    """Checkpoints of an OpenVocabularyModel, which load exactly or not at all; see TrainingCheckpointer."""

    def metadata(self) -> dict:
        """The towers' description and the configuration."""
        return {METADATA: self.model.metadata}

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's; to resume, file and configuration must agree on a moving average.

        Raises:
            CheckpointError: They do not.
        """
        if path and checkpointables is None and "trainer" in self.checkpointables:
            self.require_same_average("average" in read_checkpoint(path), path)
        return super().load(path, checkpointables)

    def _load_file(self, filename: str) -> dict:
        file, content = _read(filename)
        return {**content, _FILE: file}

    def _load_model(self, checkpoint: dict) -> None:
        given, own, file = checkpoint[METADATA], self.model.metadata, checkpoint.pop(_FILE)
        for key in ("encoder", "construction"):
            if key in own and _entry(given, key, file.path) != own[key]:
                raise CheckpointError(
                    f"{file.path} was trained over the {key} {given[key]}, the model has {own[key]}. "
                    "Give the same MODEL.ENCODER, or the checkpoint as MODEL.WEIGHTS, which brings its own."
                )
        advice = "MODEL is not configured as in its training."
        weights = self.model.adapt_weights(checkpoint.pop("model"))
        load_exactly(self.model, place(self.model, weights), f"the model checkpoint {file.path}", advice)
        file.require_intact()
        expected, fingerprint = _entry(given, "text_fingerprint", file.path), self.model.text_tower.fingerprint()
        if fingerprint != expected:
            raise FingerprintMismatchError(
                f"The checkpoint {file.path} names the text tower {expected}, the one in it is "
                f"{fingerprint}: the file was changed by hand, or its tokenizer was."
            )
        self.model.metadata = {**own, "text_fingerprint": fingerprint}


def model_from_checkpoint(
    path: str | Path,
    defaults: CfgNode,
    *,
    keys: Iterable[Key] = (),
    device: str = "cpu",
    cache_dir: str | Path | None = None,
) -> OpenVocabularyModel:
    """Build the model of a checkpoint from the configuration in it, in eval mode.

    It has the vocabulary of a portable file, if there is one in it, else none. Nothing in the file decides where files
    are read or written: see `stored_config.NOT_TAKEN`.

    Args:
        path: Checkpoint or portable file of a registered meta-architecture.
        defaults: Values of the keys that the stored configuration lacks. Changed.
        keys: Choices and ranges of the keys.
        device: Device of the model.
        cache_dir: Folder of cached text embeddings; None for none.

    Raises:
        CheckpointError: The file is absent, damaged, of another kind, or carries no configuration that can be built.
        WeightsMismatchError: Its weights do not fit its configuration.
    """
    metadata = read_checkpoint(path)[METADATA]
    vocabulary = _vocabulary(metadata, path)
    cfg = defaults
    cfg.set_new_allowed(True)  # keys of other versions and of a user's own architecture
    merge_stored_config(cfg, stored_config(metadata, path), keys, path)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(path), device
    try:
        registered(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, "MODEL.META_ARCHITECTURE", OpenVocabularyModel)
        model = build_model(cfg)
    except ConfigurationError as error:
        raise CheckpointError(f"The configuration in {path} does not describe a model: {error}") from error
    ModelCheckpointer(model).load(str(path))
    model.metadata |= {key: metadata[key] for key in ("config", "description") if metadata.get(key)}
    model.cache_dir = cache_dir
    if vocabulary is not None:
        model.set_default_vocabulary(vocabulary)
    return model.eval()


def _vocabulary(metadata: dict, path: str | Path) -> Vocabulary | None:
    """The vocabulary in the metadata of a file.

    Raises:
        CheckpointError: It is damaged.
    """
    found = metadata.get("vocabulary")
    if not found:
        return None
    if found.keys() != {"names", "novel"} or not all(is_of(value, list[str]) for value in found.values()):
        raise CheckpointError(
            f"The vocabulary in {path} is {short(found)}, expected are lists of text, 'names' and 'novel'. {_REMEDY}"
        )
    try:
        return Vocabulary(found["names"], novel=found["novel"])
    except DataError as error:
        raise CheckpointError(f"The vocabulary in {path} is damaged: {error}") from error


NAME = "model_best"


class BestCheckpoint:
    """Writer of model_best.pth, updated whenever an evaluation is better than all before.

    The file has the evaluated weights, and in its entry "best" the metric reached and its step; a resumed
    training goes on from there.

    Args:
        checkpointer: Checkpointer that writes the file.
        metric: "task/metric" of the first test set's results, larger is better; "auto" for the first of the model's
            `best_metrics` that exists.
        resumed: True to compare with a file that exists already.
    """

    def __init__(self, checkpointer: ModelCheckpointer, metric: str, *, resumed: bool):
        self.checkpointer = checkpointer
        self.metric = metric
        self.value = -math.inf
        path = Path(checkpointer.save_dir) / f"{NAME}.pth"
        if resumed and path.is_file():
            best = read_checkpoint(path).get("best")
            if not isinstance(best, dict) or not is_of(best.get("metric"), str) or not is_of(best.get("value"), float):
                raise CheckpointError(
                    f"The entry 'best' of {path} is {short(best)}, expected are 'metric' and 'value'. Remove the file "
                    "to begin with the next evaluation."
                )
            if metric in ("auto", best["metric"]):
                self.metric, self.value = best["metric"], best["value"]

    def update(self, results: dict[str, dict[str, float]], step: int) -> None:
        """Write the model if it is better. All processes call it; only the main process has the results.

        Args:
            results: Scores by task and metric.
            step: Number of steps done.

        Raises:
            ConfigurationError: The named metric is not among them.
        """
        entry = self._if_better(results, step) if comm.is_main_process() else None
        better = comm.all_gather(entry is not None)[0]  # the weights may be shared, so that all have to save
        if better:
            self.checkpointer.save_model(NAME, best=entry)

    def _if_better(self, results: dict[str, dict[str, float]], step: int) -> dict | None:
        """The file's entry "best", if this evaluation is better than all before."""
        found = {f"{task}/{name}": value for task, scores in results.items() for name, value in scores.items()}
        if not found:
            return None
        if self.metric == "auto":
            candidates = self.checkpointer.model.best_metrics
            known = [name for name in candidates if name in found]
            if not known:
                logger.warning("No best checkpoint: none of %s is among the results; set TEST.BEST.", list(candidates))
                return None
            self.metric = known[0]
        if self.metric not in found:
            raise ConfigurationError(f"TEST.BEST is {self.metric!r}; the results have {', '.join(sorted(found))}.")
        value = float(found[self.metric])
        if not value > self.value:  # NaN is greater than nothing
            return None
        logger.info("%s %.3f after %d steps is the best so far.", self.metric, value, step)
        self.value = value
        return {"metric": self.metric, "value": value, "step": step}


_SCORING = ("BEST", "EVAL_PERIOD", "EXPECTED_RESULTS", "IMS_PER_PROCESS", "LVIS_PROTOCOLS", "PROPOSALS")
_SCORING += ("PROPOSAL_RECALL", "RESUME_PREDICTIONS", "SEM_SEG_PROTOCOLS")


def predictions_digest(cfg: CfgNode, model: OpenVocabularyModel) -> str:
    """A digest (sha256, 16 hex digits) of all weights, the vocabulary in use and the settings that predictions show.

    Saved predictions of one model are thereby never completed by those of another. The path of the weights, the device
    and settings of TEST that concern only the scoring do not matter.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.numpy().tobytes())
    digest.update(model.classes.require().detach().cpu().numpy().tobytes())
    digest.update(repr((model.vocabulary.names, sorted(model.vocabulary.novel))).encode())
    settings = cfg.clone()
    settings.defrost()
    settings.MODEL.WEIGHTS = settings.MODEL.DEVICE = settings.MODEL.ENCODER.CHECKPOINT = ""
    shown = {key: value for key, value in settings.TEST.items() if key not in _SCORING}
    digest.update(repr((settings.MODEL.dump(), settings.INPUT.dump(), CfgNode(shown).dump())).encode())
    return digest.hexdigest()[:16]


def write_model(path: str | Path, model: OpenVocabularyModel, cfg: CfgNode) -> None:
    """Write a checkpoint that MODEL.WEIGHTS takes, whole or not at all.

    Args:
        path: Path of the .pth file.
        model: A model that was built from a configuration.
        cfg: Configuration of the model, kept in the file, which then suffices to build it.
    """
    content = {"model": model.state_dict(), METADATA: {**model.metadata, "config": cfg.dump()}}
    write_atomically(path, content)
