"""Device, precision, processes and output folder of a run: shared by all trainings."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path

import torch
from detectron2.engine import TrainerBase, create_ddp_model
from detectron2.utils import comm
from torch import nn

from ..structures import ConfigurationError, WriteError
from ..structures.locks import locked_folder

logger = logging.getLogger(__name__)

_DEVICE = re.compile(r"cpu(:0)?|cuda(:\d{1,3})?|(mps|xpu)(:\d{1,3})?")


def resolve_device(name: str) -> torch.device:
    """MODEL.DEVICE as a device that this machine has.

    Args:
        name: "auto" for a GPU where there is one and the CPU elsewhere; or a device's name. Detectron2's default
            "cuda" falls back to the CPU, with a warning, where there is no GPU.

    Raises:
        ConfigurationError: No such device.
    """
    wanted = "cuda" if name == "auto" else name
    if not _DEVICE.fullmatch(wanted):
        raise ConfigurationError(f"The device is {name!r}; expected is auto, cpu, cuda, cuda:N or mps.")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        if name != "auto":
            logger.warning("MODEL.DEVICE is %r, but there is no CUDA device; using the CPU.", name)
        return torch.device("cpu")
    if wanted.startswith("cuda:") and int(wanted[5:]) >= torch.cuda.device_count():
        raise ConfigurationError(f"The device is {name!r}, but this machine has {torch.cuda.device_count()} GPUs.")
    if wanted.startswith("mps") and not torch.backends.mps.is_available():
        raise ConfigurationError(f"The device is {name!r}, which this machine does not have. Use auto or cpu.")
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
    """True if AdamW can update these in one kernel that reads every number once (its option `fused`)."""
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)


class Precision(Enum):
    """Arithmetic under autocast; the losses and the weights are always float32."""

    FP32 = "fp32"
    BF16 = "bf16"  # float32's range: needs no gradient scaling
    FP16 = "fp16"  # gradients are scaled, and a step whose gradient overflows is skipped

    @property
    def dtype(self) -> torch.dtype | None:
        """Autocast dtype; None: no autocast."""
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


def any_process(flag: bool, device: torch.device) -> bool:
    """True if the flag is set in at least one process; all must call it, with their device."""
    if comm.get_world_size() == 1:
        return flag
    votes = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return bool(votes)


def join_processes(model: nn.Module, device: torch.device, *, find_unused: bool = False) -> nn.Module:
    """The model whose gradients are averaged over the processes; the model itself where there is one process.

    Args:
        model: Model on `device`.
        device: A GPU, or the CPU, for which Detectron2's own call names a GPU.
        find_unused: True if some parameters get no gradient.

    Raises:
        ConfigurationError: SyncBN in several CPU processes, which PyTorch has only for GPUs.
    """
    if comm.get_world_size() == 1:
        return model
    require_synchronizable(model, device)
    options = {"broadcast_buffers": False, "find_unused_parameters": find_unused}
    options["gradient_as_bucket_view"] = True  # what is sent is the gradient itself, not a second copy of all of it
    if device.type != "cuda":
        options["device_ids"] = None
    return create_ddp_model(model, **options)


def require_synchronizable(model: nn.Module, device: torch.device) -> None:
    """Refuse SyncBN in several CPU processes, which PyTorch has for GPUs only.

    Raises:
        ConfigurationError: The model has SyncBN layers; `device` is a CPU.
    """
    if device.type == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ConfigurationError(
            f"The model has SyncBN layers, which need GPUs, and trains in {comm.get_world_size()} CPU processes. Set "
            f"the NORM keys that say SyncBN (MODEL.FPN, .ROI_BOX_HEAD, .ROI_MASK_HEAD, "
            f".FVIT.RPN) to BN or GN, or take one process."
        )


@contextmanager
def training_folder(folder: str | Path) -> Iterator[None]:
    """Hold OUTPUT_DIR for this training; inside, the error of a file that cannot be written names the way to go on.

    All processes enter; the main process holds the lock.

    Raises:
        ConfigurationError: Another training holds it.
    """
    with locked_folder(folder) if comm.is_main_process() else nullcontext():
        try:
            yield
        except WriteError as error:
            raise WriteError(f"{error} After that, --resume continues from the last checkpoint.") from error


@contextmanager
def at_iteration(trainer: TrainerBase, iteration: int) -> Iterator[None]:
    """Inside, a trainer and its storage are at an iteration that an earlier process did.

    Args:
        trainer: Trainer within `train`.
        iteration: Number of that iteration, from 0.
    """
    now = trainer.iter, trainer.storage.iter
    trainer.iter = trainer.storage.iter = iteration
    try:
        yield
    finally:
        trainer.iter, trainer.storage.iter = now
