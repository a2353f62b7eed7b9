"""What several processes do together: one model, one decision."""

import torch
from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from torch import nn

from ..structures import ConfigurationError


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process; all must call it. `device` is where they compute."""
    if comm.get_world_size() == 1:
        return flag
    votes = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return bool(votes)


def join_processes(model: nn.Module, device: torch.device, *, find_unused: bool = False) -> nn.Module:
    """The model whose gradients are averaged over the processes; the model itself where there is one process.

    Args:
        model: on `device`.
        device: a GPU, or the CPU, for which Detectron2's own call names a GPU.
        find_unused: some parameters get no gradient.

    Raises:
        ConfigurationError: SyncBN in several CPU processes, which PyTorch has for GPUs alone.
    """
    if comm.get_world_size() == 1:
        return model
    if device.type == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ConfigurationError(
            f"The model has SyncBN layers, which need GPUs, and trains in {comm.get_world_size()} CPU processes. Set "
            f"the NORM keys that say SyncBN (MODEL.FPN, .ROI_BOX_HEAD, .ROI_MASK_HEAD, .FVIT.UPSAMPLER_NORM, "
            f".FVIT.RPN) to BN or GN, or take one process."
        )
    options = {"broadcast_buffers": False, "find_unused_parameters": find_unused}
    options["gradient_as_bucket_view"] = True  # what is sent is the gradient itself, not a second copy of all of it
    if device.type != "cuda":
        options["device_ids"] = None
    return create_ddp_model(model, **options)
