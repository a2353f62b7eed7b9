"""Reading weights from files and loading them exactly."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..structures import CheckpointError, WeightsMismatchError

StateDict = dict[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model", "module")  # keys under which training scripts nest their weights
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def read_weights(path: str | Path) -> StateDict:
    """A flat state dict from a .safetensors or a torch file, whatever it is nested in.

    Raises:
        CheckpointError: The file is absent, unreadable, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no weights file at {path}. Give an existing .safetensors, .pt or .pth file.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript archive, a program and not weights alone (OpenAI's own CLIP files are such). "
                "Give open_clip's tag 'openai' as MODEL.ENCODER.WEIGHTS, or the weights as a state dict."
            ) from error
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # pickle refuses unknown classes with errors of many types
        raise CheckpointError(
            f"{path} holds more than tensors and is not loaded for safety (weights_only=True): {error}"
        ) from error
    while isinstance(state, Mapping):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not any(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state dict (a mapping from names to tensors).")
    state = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_exactly(module: nn.Module, state: Mapping[str, torch.Tensor], source: str, advice: str | None = None) -> None:
    """Load every key, or nothing.

    Raises:
        WeightsMismatchError: With the full lists of missing, unexpected and misshapen keys;
            the module is then unchanged.
    """
    own = module.state_dict()
    missing = own.keys() - state.keys()
    unexpected = state.keys() - own.keys()
    misshapen = [
        (key, tuple(state[key].shape), tuple(own[key].shape))
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if missing or unexpected or misshapen:
        extra = {} if advice is None else {"advice": advice}
        raise WeightsMismatchError(source, missing, unexpected, misshapen, **extra)
    module.load_state_dict(state, strict=True)
