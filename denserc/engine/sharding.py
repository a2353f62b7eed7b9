"""Weights, gradients and optimizer state that processes share by FSDP2; in a file they are always whole.

`whole_weights` and `whole_optimizer` give the same content with and without sharding, for any number of processes, and
`place` and `load_optimizer` take it over. A state file therefore does not depend on who wrote it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import MethodType

import torch
from detectron2.utils import comm
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from .runtime import require_synchronizable

logger = logging.getLogger(__name__)

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_SCALAR = "was_scalar"  # attribute of a sharded parameter without dimensions, to which FSDP2 had to give one


class Sharding(Enum):
    """Tensors that several processes share; a single process shares nothing."""

    NONE = "none"  # every process has all weights, gradients and optimizer state; gradients are averaged (DDP)
    FSDP = "fsdp"  # each keeps its part of the trained weights, of their gradients and of the optimizer state (FSDP2)

    @property
    def acts(self) -> bool:
        """True if anything is shared in this run."""
        return self is Sharding.FSDP and comm.get_world_size() > 1


def shard(module: nn.Module, *, parts: Iterable[nn.Module] = (), methods: Iterable[str] = ()) -> None:
    """Shard a module's trained weights over all processes, in place. They start from the main process's weights.

    Frozen weights stay whole in every process. The trained weights of `parts` are gathered one part at a time, the rest
    for the whole forward and backward pass. Build the optimizer afterwards.

    Args:
        module: Module on its device, with its trained parameters selected. It must be used only through its forward.
        parts: Submodules whose weights are used inside of their method `visit` only, which this function adds:
            `visit(function, *tensors)` calls `function(*tensors)`, which returns a tuple of tensors. These must not be
            changed in place.
        methods: Names of further methods of `module` that compute with the weights. They do not call each other.

    Raises:
        ConfigurationError: SyncBN in several CPU processes.
    """
    require_synchronizable(module, next(module.parameters()).device)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    count = sum(p.numel() for p in learning.values()) / 1e6
    logger.info(f"{count:.3f} M parameters of {type(module).__name__} are shared by {comm.get_world_size()} processes.")
    scalars = [name for name, p in learning.items() if p.ndim == 0]
    for name in scalars:
        learning[name].data = learning[name].data.reshape(1)
    options = {
        "mesh": init_device_mesh(next(module.parameters()).device.type, (comm.get_world_size(),)),
        "ignored_params": {p for p in module.parameters() if not p.requires_grad},
    }
    for part in parts:
        part.visit = MethodType(_visit, part)
        fully_shard(part, reshard_after_forward=True, **options)
        register_fsdp_forward_method(part, "visit")
    fully_shard(module, reshard_after_forward=False, **options)
    for name in methods:
        register_fsdp_forward_method(module, name)
    for name in scalars:
        setattr(module.get_parameter(name), _SCALAR, True)


def _visit(part: nn.Module, function: Callable, *tensors: torch.Tensor | None) -> tuple:
    return function(*tensors)


def sharded_root(module: nn.Module) -> FSDPModule | None:
    """The module given to `shard`: `module` itself or one inside of it; None without sharding."""
    return next((one for one in module.modules() if isinstance(one, FSDPModule)), None)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside, every process has all weights whole, and its forwards do not depend on other processes.

    For an evaluation, in which the processes have different numbers of images. All processes enter and leave. Inside,
    neither `state_dict` nor `to` may be called: FSDP2 then takes the whole weights away.
    """
    shared = [one for one in module.modules() if isinstance(one, FSDPModule)]
    for one in shared:
        one.set_reshard_after_forward(False, recurse=False)
        one.unshard()
    try:
        yield
    finally:
        for position, one in enumerate(shared):  # the root is the first, and stays whole after its forward
            one.set_reshard_after_forward(position > 0, recurse=False)
            one.reshard()


def whole_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """`module.state_dict()` as it is without sharding, on the CPU of the main process; empty on the others.

    All processes must call it. Tensors that are on the CPU already are not copied.
    """
    scalars = _scalars(module)
    state = get_model_state_dict(module, options=_WHOLE)
    return {name: value.reshape(()) if name in scalars else value for name, value in state.items()}


def place(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Whole weights in the form that `module.load_state_dict` requires: the process's part of sharded weights.

    Args:
        module: Sharded, or not; then the weights are returned as they are.
        weights: Result of `whole_weights`, in every process.
    """
    own = module.state_dict()
    return {name: _part(value, own.get(name)) for name, value in weights.items()}


def _part(value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return value
    value = value.reshape(1) if value.ndim == 0 else value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_optimizer(module: nn.Module, optimizer: Optimizer) -> dict:
    """The optimizer's state without sharding, on the CPU of the main process; empty on the others. All call it.

    Args:
        module: Module whose parameter names are the keys of the state.
        optimizer: Optimizer of parameters of `module`.
    """
    scalars = _scalars(module)
    state = get_optimizer_state_dict(module, optimizer, options=_WHOLE)
    for name in scalars & state.get("state", {}).keys():
        state["state"][name] = {key: value.reshape(()) for key, value in state["state"][name].items()}
    return state


def load_optimizer(module: nn.Module, optimizer: Optimizer, state: dict) -> None:
    """Take over a state of `whole_optimizer`, or one by parameter numbers, as `optimizer.state_dict()` gives it.

    Args:
        module: Module as for `whole_optimizer`.
        optimizer: Optimizer whose groups have the same parameters.
        state: Whole, in every process.

    Raises:
        ValueError: The state has other groups of parameters.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    groups = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    name_of = {number: name for number, name in enumerate(name for group in groups for name in group)}
    given = [[name_of.get(key, key) for key in group["params"]] for group in state["param_groups"]]
    if [set(group) for group in given] != [set(group) for group in groups]:
        raise ValueError("the optimizer's groups have other parameters")
    moments = {name_of.get(key, key): dict(values) for key, values in state["state"].items()}
    for name in _scalars(module) & moments.keys():
        moments[name] = {k: v if k == "step" else v.reshape(1) for k, v in moments[name].items()}
    entries = [{**group, "params": params} for group, params in zip(state["param_groups"], given, strict=True)]
    # Not strict, because a parameter that never had a gradient has no state; loading must not give it one either.
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_optimizer_state_dict(module, optimizer, {"state": moments, "param_groups": entries}, options=options)
    for parameter, name in names.items():
        if name not in moments:
            optimizer.state.pop(parameter, None)
    for group, entry in zip(optimizer.param_groups, entries, strict=True):  # lists for tuples after PyTorch's loading
        group.update({key: value for key, value in entry.items() if isinstance(value, tuple)})


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whose parts all processes have, whole in each of them; all call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process keeps, sharing its memory; without sharding the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _scalars(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if hasattr(parameter, _SCALAR)}
