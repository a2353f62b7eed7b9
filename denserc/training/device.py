"""Where a run computes."""

import logging

import torch

logger = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """MODEL.DEVICE as a device that this machine has.

    Args:
        name: "auto" for a GPU where there is one and the CPU elsewhere; or a device's name. Detectron2's default
            "cuda" falls back to the CPU, with a warning, where there is no GPU.
    """
    wanted = "cuda" if name == "auto" else name
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        if name != "auto":
            logger.warning("MODEL.DEVICE is %r, but there is no CUDA device; using the CPU.", name)
        return torch.device("cpu")
    return torch.device(wanted)
