"""Comparison of a LLaVA with the checkpoint of its vision tower, and with its processor."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration, LlavaProcessor

from ..structures import ConfigurationError, FingerprintMismatchError
from .export import VisionTower, build_vision_tower, feature_selection, tower_metadata
from .fingerprint import DTYPES, require_fingerprint
from .vision_tower import DenseRCVisionModel


def check_tower(model: nn.Module, checkpoint: str | Path | None = None) -> None:
    """Check that a LLaVA, or a vision tower, holds exactly the encoder of a checkpoint, or of its own configuration.

    A LLaVA that was built from only a configuration has a random tower, without any warning of transformers.

    Args:
        model: LlavaForConditionalGeneration, LlavaModel, a PeftModel over one, or a tower.
        checkpoint: denserc.safetensors; None compares with the fingerprints in the tower's configuration.

    Raises:
        FingerprintMismatchError: At least one tensor differs, or the tower is of another encoder.
        CheckpointError: The file is absent or is not a DenseRC checkpoint.
    """
    tower = find_tower(model)
    metadata = tower_metadata(tower)
    if checkpoint is None:
        weights = tower if isinstance(tower, CLIPVisionModel) else tower.encoder
        require_fingerprint(weights, metadata["fingerprints"], f"The vision tower {metadata['encoder']}")
        return
    plain = isinstance(tower, CLIPVisionModel)
    expected = build_vision_tower(checkpoint, metadata["feature"], image_size=tower.config.image_size, plain=plain)
    differing = [
        f"{key} is {metadata[key]!r}, the checkpoint has {value!r}"
        for key, value in tower_metadata(expected).items()
        if key in ("encoder", "construction", "pixel_mean", "pixel_std") and _plain(metadata[key]) != _plain(value)
    ]
    own, other = tower.state_dict(), expected.state_dict()
    differing += [f"{key} is in one of them only" for key in sorted(own.keys() ^ other.keys())]
    if not differing:
        differing = [f"{key} has other values" for key, value in other.items() if not _is_value(own[key], value)]
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise FingerprintMismatchError(
            f"The vision tower is not the encoder of {checkpoint}: {shown}. It is random (a LLaVA built from a "
            "configuration alone) or another one. Load the folder of `denserc export llava` by from_pretrained, or "
            "export it again from this checkpoint."
        )


def check_processor(processor: LlavaProcessor, model: LlavaForConditionalGeneration) -> None:
    """Check that a processor writes as many image tokens as the tower gives features, and feeds it as trained.

    Args:
        processor: Processor of the LLaVA.
        model: LlavaForConditionalGeneration, or anything with its `config`.

    Raises:
        ConfigurationError: Token counts, layer, pixel statistics or image token do not fit; all are listed.
    """
    config, tower = model.config, find_tower(model)
    metadata, selection = tower_metadata(tower), feature_selection(tower)
    blank = Image.fromarray(np.zeros((tower.config.image_size, 2 * tower.config.image_size, 3), np.uint8))
    inputs = processor(images=blank, text=processor.image_token, return_tensors="pt")
    tokens = int((inputs["input_ids"] == config.image_token_id).sum())
    height, width = inputs["pixel_values"].shape[-2:]
    patch, images = tower.config.patch_size, processor.image_processor
    found = {
        "size of the images": ((height, width), (tower.config.image_size,) * 2),
        "image tokens": (tokens, (tower.config.image_size // patch) ** 2),
        "image token": (processor.image_token_id, config.image_token_id),
        "image_mean": (_rounded(images.image_mean), _rounded(metadata["pixel_mean"])),
        "image_std": (_rounded(images.image_std), _rounded(metadata["pixel_std"])),
        **{key: (getattr(config, key), value) for key, value in selection.items()},
    }
    wrong = [f"{name}: given {given}, the tower needs {needed}" for name, (given, needed) in found.items()
             if given != needed]  # fmt: skip
    if wrong:
        raise ConfigurationError(
            f"The processor does not fit the vision tower {metadata['encoder']}. {'; '.join(wrong)}. Use the processor "
            "that `denserc export llava` wrote beside the model, or `denserc.mllm.build_image_processor`."
        )


def find_tower(model: nn.Module) -> VisionTower:
    """The DenseRC vision tower in a model.

    Raises:
        ConfigurationError: There is none.
    """
    for module in model.modules():
        if isinstance(module, DenseRCVisionModel):
            return module
        if isinstance(module, CLIPVisionModel) and getattr(module.config, "denserc", None):
            return module
    raise ConfigurationError(
        f"There is no DenseRC vision tower in {type(model).__name__}. Export one by `denserc export llava`."
    )


def _is_value(tensor: torch.Tensor, expected: torch.Tensor) -> bool:
    """Compare tensors up to one rounding, such as that of a float16 folder that is read as float32."""
    return tensor.shape == expected.shape and any(
        torch.equal(tensor.cpu().float(), expected.to(dtype).float()) for dtype in DTYPES.values()
    )


def _rounded(values) -> list[float]:
    return [round(float(value), 6) for value in values]


def _plain(value):
    """A tuple as a list, as JSON gives it back; other values as they are."""
    return list(value) if isinstance(value, tuple) else value
