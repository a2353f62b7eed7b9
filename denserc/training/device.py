"""Where a run computes, and the memory there."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from detectron2.utils import comm

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


def free_bytes(device: torch.device) -> int | None:
    """Memory that this process may still take: on a GPU what is free, on a CPU its share of what Linux can give.

    None where it cannot be known (a CPU under another system).
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    return None if available is None else available // comm.get_local_size()


def fused_update(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether AdamW's update of these can be one kernel that reads every number once (its option `fused`)."""
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
