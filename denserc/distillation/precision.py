"""The arithmetic of the towers: which dtype, and whether gradients are scaled."""

from enum import Enum

import torch

from ..structures import ConfigurationError


class Precision(Enum):
    """Arithmetic of the towers; the losses and the weights are always float32."""

    FP32 = "fp32"
    BF16 = "bf16"  # float32's range: needs no gradient scaling
    FP16 = "fp16"  # gradients are scaled, and a step whose gradient overflows is skipped


def arithmetic(precision: Precision, device: torch.device) -> tuple[torch.dtype | None, torch.amp.GradScaler]:
    """The dtype of autocast (None = none) and the gradient scaler, which does nothing except for fp16.

    Raises:
        ConfigurationError: fp16 without a GPU.
    """
    if precision is Precision.FP16 and device.type != "cuda":
        raise ConfigurationError(
            f"DISTILL.PRECISION is 'fp16', but the training runs on {device.type!r}: float16 is slow and overflows "
            f"there without any gain. Use 'bf16' or 'fp32', or a CUDA device."
        )
    scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.FP16)
    return {Precision.FP32: None, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[precision], scaler
