"""The LLaVA that a training starts from, with its tower and processor checked."""

import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from ..mllm import check_processor, check_tower, export_llava, find_tower
from ..structures import CheckpointError, ConfigurationError

logger = logging.getLogger(__name__)

STARTING_MODEL = "starting_model"
"""Folder below OUTPUT_DIR of a LLaVA that was made for this training."""


def starting_folder(cfg: CfgNode) -> Path:
    """The folder of the LLaVA to start from: MODEL.WEIGHTS, or a new one below OUTPUT_DIR. All processes call it.

    Raises:
        ConfigurationError: Neither MODEL.WEIGHTS, nor MODEL.LLAVA.LANGUAGE_MODEL and MODEL.ENCODER.CHECKPOINT are set.
        CheckpointError: One of them cannot be read.
    """
    if cfg.MODEL.WEIGHTS:
        return Path(cfg.MODEL.WEIGHTS)
    language_model, encoder = cfg.MODEL.LLAVA.LANGUAGE_MODEL, cfg.MODEL.ENCODER.CHECKPOINT
    if not language_model or not encoder:
        raise ConfigurationError(
            "There is no LLaVA to start from: MODEL.WEIGHTS is empty, MODEL.LLAVA.LANGUAGE_MODEL is "
            f"{language_model!r} and MODEL.ENCODER.CHECKPOINT is {encoder!r}. Set MODEL.WEIGHTS to a folder of "
            "`denserc export llava` or of stage 1, or set both others."
        )
    folder = Path(cfg.OUTPUT_DIR) / STARTING_MODEL
    if comm.is_main_process():
        export_llava(language_model, encoder, folder, feature=cfg.MODEL.LLAVA.FEATURES, seed=max(cfg.SEED, 0))
    comm.synchronize()
    return folder


def load_llava(
    folder: str | Path, encoder: str | Path = "", *, dtype: torch.dtype | str = torch.float32
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA with its processor from a folder, after all checks that need no training data.

    Args:
        folder: Folder of `denserc export llava` or of a training.
        encoder: Checkpoint that the vision tower must hold exactly; empty: only its own fingerprint is checked.
        dtype: Type of the weights; "auto" is that of the folder.

    Raises:
        CheckpointError: The folder is not a LLaVA.
        FingerprintMismatchError: The vision tower is random, or not the encoder.
        ConfigurationError: The tower is none of DenseRC, or the processor does not fit it.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if not isinstance(config, LlavaConfig):  # otherwise transformers builds a random LLaVA of 7B, in spite of it
            raise ValueError(f"its config.json has the model_type {config.model_type!r}, expected is 'llava'")
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
        processor = LlavaProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} cannot be read as a LLaVA with its processor: {error}. Give a folder of `denserc export llava`, "
            "or OUTPUT_DIR/model of a training."
        ) from error
    if model.generation_config.temperature is not None or model.generation_config.top_p is not None:
        # Vicuna's file has them without the switch that they belong to. transformers reads that and refuses to save it.
        model.generation_config.do_sample = True
    check_processor(processor, model)
    # Where FSDP asks for it, only the first process reads the weights, and checks them.
    if not any(parameter.is_meta for parameter in find_tower(model).parameters()):
        check_tower(model, encoder or None)
    return model, processor
