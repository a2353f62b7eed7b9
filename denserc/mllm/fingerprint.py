"""Identity of a vision tower's weights: stored in config.json, checked before the first image."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..structures import FingerprintMismatchError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fingerprints(module: nn.Module) -> dict[str, str]:
    """SHA-256 digests of the weights of a float32 module as they are after loading in each dtype.

    A tower is often loaded in bfloat16, so one digest of its float32 weights could not be compared.
    """
    state = weights(module)
    return {name: _digest(state, dtype) for name, dtype in DTYPES.items()}


def require_fingerprint(module: nn.Module, expected: Mapping[str, str] | None, subject: str) -> None:
    """Check that a module holds the weights that `expected` was made from, in float32 or rounded to a half type.

    Args:
        module: Module with whole weights, on any device.
        expected: Result of `fingerprints`; anything else for a configuration that was written by hand.
        subject: Name of the tower in the message.

    Raises:
        FingerprintMismatchError: The weights are random or others'.
    """
    if not isinstance(expected, Mapping) or not isinstance(expected.get("float32"), str):
        raise FingerprintMismatchError(
            f"{subject} has no fingerprint in its configuration, so its weights may be random. Make it by "
            "`denserc export vision-tower` or `denserc export llava` from a DenseRC checkpoint."
        )
    state = weights(module)
    own = next(iter(state.values())).dtype
    for name, dtype in sorted(DTYPES.items(), key=lambda item: item[1] is not own):  # the likely one first
        if _is_exact(state, dtype) and _digest(state, dtype) == expected.get(name):
            return
    raise FingerprintMismatchError(
        f"{subject} does not hold the weights that its configuration was written for (expected the fingerprint "
        f"{expected['float32'][:12]}). They are random, as in a model built from a configuration alone, or "
        "another encoder's. Load the exported folder by from_pretrained, or export the tower again from its "
        "denserc.safetensors."
    )


def is_whole(module: nn.Module, shapes: Mapping[str, torch.Size]) -> bool:
    """True if every weight is whole in this process: not sharded, not on the meta device, not quantized.

    Args:
        module: Module, which may be shared among processes.
        shapes: Shapes by the names of `weights`, as it was built.
    """
    state = weights(module)
    return state.keys() == shapes.keys() and not any(
        value.shape != shapes[key] or not value.is_floating_point() or value.is_meta or isinstance(value, DTensor)
        for key, value in state.items()
    )


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a module's state dict. Calling `state_dict` in a forward pass would shard the weights again."""
    found = dict(module.named_parameters(remove_duplicate=False))
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for name, buffer in owner.named_buffers(prefix, recurse=False, remove_duplicate=False):
            if name.rpartition(".")[2] not in owner._non_persistent_buffers_set:
                found[name] = buffer
    return {name: tensor.detach() for name, tensor in found.items()}


def _is_exact(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> bool:
    return all(torch.equal(value.to(dtype).to(value.dtype), value) for value in state.values())


def _digest(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        # A copy: NumPy's view would forbid FSDP to free the storage.
        rounded = value.to("cpu", dtype, copy=True).contiguous().reshape(-1)
        digest.update(rounded.view(torch.uint8).numpy())
    return digest.hexdigest()
