"""Reading weights from files and loading them exactly."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..structures import CheckpointError, WeightsMismatchError
from ..structures.records import first_of, short
from ..structures.tensor_files import read_tensor_file

logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model", "module")  # keys under which training scripts nest their weights
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_COUNTER = "n_averaged"  # of PyTorch's AveragedModel, beside its "module."
_DEPTH = 8  # of nested mappings; a file may contain itself


def read_weights(path: str | Path) -> StateDict:
    """A flat state dict from a safetensors or a torch file, whatever it is nested in.

    The entry "state_dict", "model" or "module" is preferred. Another one, such as "model_ema", is taken if it is the
    only one with tensors.

    Raises:
        CheckpointError: The file is absent, damaged, of another kind, or holds no state dict, or several; the message
            then lists its entries.
    """
    file = read_tensor_file(path, "weights file", advice="Give an existing .safetensors, .pt or .pth file.")
    state = _unwrapped(file.content, str(path))
    file.require_intact()
    if _COUNTER in state and all(key == _COUNTER or key.startswith("module.") for key in state):
        del state[_COUNTER]
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _unwrapped(content: Any, path: str) -> StateDict:
    """The one state dict in the content of a file."""
    taken: list[str] = []
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            own = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
            nested = [key for key, value in content.items() if isinstance(value, Mapping) and _count(value)]
            if any(value.numel() > 1 for value in own.values()) or (own and not nested):
                return _named(own, path)
            if len(nested) != 1:
                break
            wrapper = nested[0]
            logger.info("%s: the weights are those of its entry %s.", path, short(wrapper))
        taken.append(short(wrapper))
        content = content[wrapper]
    where = f", in {' > '.join(taken)}" if taken else ""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds no state dict (a mapping from names to tensors){where}; it holds {_kind(content)}."
        )
    entries = [f"{short(key)}: {_kind(value)}" for key, value in content.items()]
    several = sum(1 for value in content.values() if isinstance(value, Mapping) and _count(value)) > 1
    what = "several state dicts" if several else "no state dict (a mapping from names to tensors)"
    raise CheckpointError(
        f"{path} holds {what}{where}. Its entries are {first_of(entries, 20) or 'none'}. Save the right one alone by "
        "torch.save, such as torch.save(content['state_dict'], 'weights.pt')."
    )


def _named(state: Mapping[Any, torch.Tensor], path: str) -> StateDict:
    nameless = [key for key in state if not isinstance(key, str)]
    if nameless:
        raise CheckpointError(f"{path} holds tensors under {short(nameless[0])}, which is not the name of a weight.")
    return dict(state)


def _count(value: Mapping) -> int:
    """Number of tensors under names, directly in a mapping or one mapping below."""
    own = sum(isinstance(key, str) and isinstance(one, torch.Tensor) for key, one in value.items())
    return own or sum(
        isinstance(key, str) and isinstance(one, torch.Tensor)
        for inner in value.values()
        if isinstance(inner, Mapping)
        for key, one in inner.items()
    )


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        count = _count(value)
        return f"a mapping with {count} tensors" if count else "a mapping without tensors"
    return f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def load_exactly(module: nn.Module, state: Mapping[str, torch.Tensor], source: str, advice: str | None = None) -> None:
    """Load every key, or nothing.

    Raises:
        WeightsMismatchError: With the full lists of missing, unexpected, misshapen and mistyped keys; the module is
            then unchanged.
        CheckpointError: Values are not finite, or beyond the dtype of the module, which is unchanged.
    """
    own = module.state_dict()
    common = own.keys() & state.keys()
    missing = own.keys() - state.keys()
    unexpected = state.keys() - own.keys()
    misshapen = [
        (key, tuple(state[key].shape), tuple(own[key].shape)) for key in common if state[key].shape != own[key].shape
    ]
    mistyped = [
        (key, _given_type(state[key]), _number_type(own[key]))
        for key in common
        if _given_type(state[key]) != _number_type(own[key])
    ]
    if missing or unexpected or misshapen or mistyped:
        extra = {} if advice is None else {"advice": advice}
        raise WeightsMismatchError(source, missing, unexpected, misshapen, mistyped=mistyped, **extra)
    require_finite(state, source, like=own)
    module.load_state_dict(state, strict=True)


def require_finite(
    state: Mapping[str, torch.Tensor], source: str, *, like: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        state: Weights by name.
        source: Path or name of the weights.
        like: The tensors that they replace, whose dtypes count. A mask that is infinite in both is allowed.

    Raises:
        CheckpointError: It lists the tensors.
    """
    wrong = []
    for key, given in state.items():
        own = given if like is None else like[key]
        value = given.to(own.dtype) if _may_overflow(given.dtype, own.dtype) else given
        if not is_finite(value) and (like is None or not _same_mask(value, own)):
            wrong.append(f"{key} ({int((~torch.isfinite(_local(value))).sum())} of {value.numel()} values)")
        elif value is not given and not given.is_floating_point() and not torch.equal(value.to(given.dtype), given):
            wrong.append(f"{key} (beyond {own.dtype})")
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of {len(state)} tensors of {source} hold NaN or infinite values: {first_of(wrong, 10)}. The "
            "file is damaged or its training had diverged: copy it again, or take an earlier checkpoint."
        )


def is_finite(value: torch.Tensor) -> bool:
    """Check that a tensor has no NaN or infinity; in one pass, 15 times as fast as torch.isfinite."""
    value = _local(value)
    if not value.is_floating_point() or value.numel() == 0:
        return True
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(value.detach()))


def _local(value: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor."""
    return value.to_local() if hasattr(value, "to_local") else value


def _same_mask(value: torch.Tensor, own: torch.Tensor) -> bool:
    return torch.equal(torch.isfinite(_local(value)).cpu(), torch.isfinite(_local(own)).cpu())


def _may_overflow(given: torch.dtype, own: torch.dtype) -> bool:
    """Check if a dtype may hold values that another does not; true of 8-bit floats, which PyTorch cannot compare."""
    return given != own and (given.itemsize > own.itemsize or given.itemsize == 1)


def _number_type(value: torch.Tensor) -> str:
    """Kind of a tensor's numbers; converting within one kind keeps their meaning."""
    if value.dtype == torch.bool or value.is_complex():
        return str(value.dtype)
    return "floating" if value.is_floating_point() else "integer"


def _given_type(value: torch.Tensor) -> str:
    """As `_number_type`, for a tensor of a file, which may have another form."""
    if value.is_meta or value.is_quantized or value.layout is not torch.strided:
        return "without values" if value.is_meta else "quantized" if value.is_quantized else str(value.layout)
    return _number_type(value)
