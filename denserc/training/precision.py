"""The arithmetic of a training: which dtype, and whether gradients are scaled."""

from enum import Enum

import torch

from ..structures import ConfigurationError


class Precision(Enum):
    """Arithmetic under autocast; the losses and the weights are always float32."""

    FP32 = "fp32"
    BF16 = "bf16"  # float32's range: needs no gradient scaling
    FP16 = "fp16"  # gradients are scaled, and a step whose gradient overflows is skipped

    @property
    def dtype(self) -> torch.dtype | None:
        """Of autocast; None: no autocast."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]

    def require_device(self, device: torch.device, key: str) -> None:
        """Raises ConfigurationError for fp16 without a GPU; `key` is the configuration's."""
        if self is Precision.FP16 and device.type != "cuda":
            raise ConfigurationError(
                f"{key} is 'fp16', but the model runs on {device.type!r}: float16 is slow and overflows "
                f"there without any gain. Use 'bf16' or 'fp32', or a CUDA device."
            )


def arithmetic(precision: Precision, device: torch.device, key: str) -> tuple[torch.dtype | None, torch.amp.GradScaler]:
    """The dtype of autocast (None = none) and the gradient scaler, which does nothing except for fp16.

    Raises:
        ConfigurationError: fp16 without a GPU; `key` is the configuration's.
    """
    precision.require_device(device, key)
    return precision.dtype, torch.amp.GradScaler(device.type, enabled=precision is Precision.FP16)
