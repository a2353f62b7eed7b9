"""Decisions that several processes must take together."""

import torch
from detectron2.utils import comm


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process; all must call it. `device` is where they compute."""
    if comm.get_world_size() == 1:
        return flag
    votes = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return bool(votes)
