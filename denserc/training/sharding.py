"""The optimiser's state, kept by every process or shared between them; in a file it is whole either way."""

from collections.abc import Callable
from enum import Enum

import torch
from detectron2.utils import comm
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer


class Sharding(Enum):
    """What the processes share between them."""

    NONE = "none"  # nothing: every process has the whole optimiser
    ZERO1 = "zero1"  # the optimiser's state (ZeRO, stage 1): each steps its part of the weights and hands them round


def build_sharded(make: Callable[..., Optimizer], groups: list[dict], sharding: Sharding, **defaults) -> Optimizer:
    """The optimiser `make(groups, **defaults)`, its state shared as `sharding` says; whole in a single process.

    Whole gradients stay with every process, so that clipping and a gradient scaler see what they see without sharding.

    Args:
        make: the optimiser's class.
        groups: parameter groups, all of one dtype and device.
    """
    if sharding is Sharding.NONE or comm.get_world_size() == 1:
        return make(groups, **defaults)
    return ZeroRedundancyOptimizer(groups, optimizer_class=make, **defaults)


def whole_state(optimizer: Optimizer) -> dict:
    """What the unshared optimiser's `state_dict` is, on the main process; nothing useful on the others. All call it."""
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        return optimizer.state_dict()
    # Not its own consolidate_state_dict, which sends every part through every process's GPU and keeps the whole.
    index = {parameter: i for i, parameter in enumerate(_parameters(optimizer))}
    mine = {index[p]: {name: value.cpu() for name, value in s.items()} for p, s in optimizer.optim.state.items()}
    parts = comm.gather(mine)
    states = {i: state for part in parts for i, state in part.items()}
    return {**Optimizer.state_dict(optimizer), "state": dict(sorted(states.items()))}


def load_whole_state(optimizer: Optimizer, state: dict) -> None:
    """Takes over a `whole_state`, whatever number of processes wrote it, shared or not.

    Raises:
        ValueError: the state has other groups.
    """
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        optimizer.load_state_dict(state)
        return
    # Not its own load_state_dict, which moves the number of steps to the CPU, where a fused update on a GPU fails.
    groups, saved = optimizer.param_groups, state["param_groups"]
    if [len(g["params"]) for g in groups] != [len(g["params"]) for g in saved]:
        raise ValueError("the optimiser's groups of parameters have other lengths")
    index = {parameter: i for i, parameter in enumerate(_parameters(optimizer))}
    own = optimizer.optim
    for group, values in zip(groups, saved, strict=True):
        group.update({key: value for key, value in values.items() if key != "params"})
    places = [index[parameter] for parameter in _parameters(own)]
    packed = [group["params"] for group in own.state_dict()["param_groups"]]
    own.load_state_dict(
        {
            "state": {i: state["state"][place] for i, place in enumerate(places) if place in state["state"]},
            "param_groups": [{**values, "params": mine} for values, mine in zip(saved, packed, strict=True)],
        }
    )


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    """In the order in which a state dict counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
