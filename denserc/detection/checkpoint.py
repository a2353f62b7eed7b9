"""Detector checkpoints: one file that carries the frozen encoder too, and loads exactly or not at all.

A file is Detectron2's (model, optimizer, scheduler, iteration) with one entry more, "fvit": the encoder's name,
its construction and the text tower's fingerprint. From it the model is built by path alone; the vocabulary is not
in it, as it is no weight. The two frozen towers make the file larger than the trained part (EVA02-B-16: 0.6 GB of
0.8 GB), which buys a detector that cannot be run over another encoder than it was trained on.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode

from ..construction import Construction, DenseEncoder, DenseModel, build_dense_model
from ..encoders import PositionResize, build_architecture, load_exactly
from ..structures import CheckpointError, FingerprintMismatchError
from ..training import write_atomically

logger = logging.getLogger(__name__)

METADATA = "fvit"


def encoder_metadata(model: DenseModel) -> dict:
    """What a detector checkpoint says of its frozen towers; plain JSON values."""
    return {
        "encoder": model.encoder.tower.name,
        "construction": model.encoder.construction.to_dict(),
        "position_resize": model.encoder.tower.position_resize.value,
        "text_fingerprint": model.text.fingerprint(),
    }


def read_detector(path: str | Path) -> dict:
    """The content of a detector checkpoint.

    Raises:
        CheckpointError: absent, unreadable, or not written by this package.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"There is no detector checkpoint at {path} (MODEL.WEIGHTS).")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # pickle refuses unknown classes with errors of many types
        raise CheckpointError(f"{path} cannot be read as a detector checkpoint: {error}") from error
    if not isinstance(content, dict) or not {"model", METADATA} <= content.keys():
        raise CheckpointError(
            f"{path} is no F-ViT checkpoint of DenseRC: it needs the entries 'model' and {METADATA!r}. An encoder goes "
            "to MODEL.ENCODER.CHECKPOINT or MODEL.ENCODER.WEIGHTS instead of MODEL.WEIGHTS."
        )
    return content


def build_towers(cfg: CfgNode) -> tuple[DenseModel, dict]:
    """The frozen towers, as the detector checkpoint in MODEL.WEIGHTS says, else as MODEL.ENCODER says.

    Weights of the former come with the detector's, when it is loaded.

    Returns:
        The towers and their metadata.
    """
    if not cfg.MODEL.WEIGHTS:
        model = build_dense_model(cfg)
        return model, encoder_metadata(model)
    metadata = {key: value for key, value in read_detector(cfg.MODEL.WEIGHTS)[METADATA].items() if key != "config"}
    if cfg.MODEL.ENCODER.CHECKPOINT:
        logger.warning(
            "The detector %s brings its own encoder; MODEL.ENCODER.CHECKPOINT = %s is not read.",
            cfg.MODEL.WEIGHTS,
            cfg.MODEL.ENCODER.CHECKPOINT,
        )
    clip = build_architecture(metadata["encoder"])
    clip.image.position_resize = PositionResize(metadata.get("position_resize", "bicubic"))  # absent from older files
    encoder = DenseEncoder(clip.image, Construction.from_dict(metadata["construction"]))
    return DenseModel(encoder, clip.text, clip.logit_scale), metadata


class FViTCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, exact; files are written whole or not at all.

    Args:
        model: an FViT, or one in DistributedDataParallel.
        checkpointables: "trainer", and "average" (a TrainedAverage), whose exported weights are then the file's model.
    """

    def save(self, name: str, **kwargs) -> None:
        """Write <save_dir>/<name>.pth on the main process; --resume takes the last one."""
        if self.save_dir and self.save_to_disk:
            beside = {key: one.state_dict() for key, one in self.checkpointables.items()}
            self.save_model(name, **beside, **kwargs)
            self.tag_last_checkpoint(f"{name}.pth")

    def save_model(self, name: str, **kwargs) -> None:
        """Write what is evaluated alone, without what resuming needs, and not for --resume."""
        if self.save_dir and self.save_to_disk:
            path = Path(self.save_dir) / f"{name}.pth"
            logger.info("Writing %s", path)
            with self._exported_weights():
                write_atomically(path, {"model": self.model.state_dict(), METADATA: self.model.metadata, **kwargs})

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's; to resume, file and configuration must agree on a moving average.

        Raises:
            CheckpointError: they do not.
        """
        if path and checkpointables is None and "trainer" in self.checkpointables:
            given, own = "average" in read_detector(path), "average" in self.checkpointables
            if given != own:
                raise CheckpointError(
                    f"{path} was written {'with' if given else 'without'} a moving average; set SOLVER.EMA.DECAY as at "
                    "the first start, or start anew without --resume."
                )
        return super().load(path, checkpointables)

    def _exported_weights(self) -> AbstractContextManager:
        average = self.checkpointables.get("average")
        return nullcontext() if average is None else average.exported_weights()

    def _load_file(self, filename: str) -> dict:
        return read_detector(filename)

    def _load_model(self, checkpoint: dict) -> None:
        given, own = checkpoint[METADATA], self.model.metadata
        for key in ("encoder", "construction"):
            if key in own and given[key] != own[key]:
                raise CheckpointError(
                    f"The detector checkpoint was trained over the {key} {given[key]}, the model has {own[key]}. "
                    "Give the same MODEL.ENCODER, or the checkpoint as MODEL.WEIGHTS, which brings its own."
                )
        advice = "The detector's MODEL configuration is not the one that it was trained with."
        weights = checkpoint.pop("model")
        if self.model.roi_heads.mask_head is None:
            weights = _without_mask_head(weights)
        load_exactly(self.model, weights, "the detector checkpoint", advice)
        fingerprint = self.model.text_tower.fingerprint()
        if fingerprint != given["text_fingerprint"]:
            raise FingerprintMismatchError(
                f"The detector checkpoint names the text tower {given['text_fingerprint']}, the one in it is "
                f"{fingerprint}: the file was changed by hand, or its tokenizer was."
            )
        self.model.metadata = {**own, "text_fingerprint": fingerprint}


def _without_mask_head(weights: dict) -> dict:
    """Weights for a detector of boxes alone (MODEL.MASK_ON False): a mask head's, if there are any, are left out."""
    kept = {key: value for key, value in weights.items() if not key.startswith("roi_heads.mask_head.")}
    if len(kept) < len(weights):
        logger.info("MODEL.MASK_ON is False: the checkpoint's mask head is not used.")
    return kept
