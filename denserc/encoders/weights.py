"""Reading weights from files and loading them exactly."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..structures import CheckpointError, WeightsMismatchError

StateDict = dict[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model", "module")  # keys under which training scripts nest their weights

# Buffers that some checkpoints repeat although they follow from the architecture. The rotary tables of
# EVA-CLIP's files are float16 on disk: trusting them would change every feature, so they are recomputed.
_DERIVED = re.compile(r"(^|\.)rope\.freqs_(cos|sin)$|(^|\.)attn_mask$")

# EVA-CLIP's own key format -> timm's, inside open_clip's `visual.trunk`.
_EVA_RENAMES = (
    (re.compile(r"^visual\."), "visual.trunk."),
    (re.compile(r"\.attn\.inner_attn_ln\."), ".attn.norm."),
    (re.compile(r"\.mlp\.ffn_ln\."), ".mlp.norm."),
    (re.compile(r"\.mlp\.w1\."), ".mlp.fc1_g."),
    (re.compile(r"\.mlp\.w2\."), ".mlp.fc1_x."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
)
_SEPARATE_BIAS = re.compile(r"\.attn\.([qv])_bias$")


def read_weights(path: str | Path) -> StateDict:
    """A flat state dict from a .safetensors or a torch file, whatever it is nested in.

    Raises:
        CheckpointError: the file is absent, unreadable, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no weights file at {path}. Give an existing .safetensors, .pt or .pth file.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
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
    while all(key.startswith("module.") for key in state):  # DistributedDataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def to_open_clip_keys(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Weights in open_clip's names: EVA-CLIP's original format is renamed, a text tower at the root
    (OpenAI's layout) gets its prefix, derived buffers are dropped."""
    state = {key: value for key, value in state.items() if not _DERIVED.search(key)}
    if "text_projection" in state:
        state = convert_to_custom_text_state_dict(state)
    if "visual.blocks.0.norm1.weight" not in state:  # the mark of EVA-CLIP's own format
        return state
    separate = "visual.blocks.0.attn.q_proj.weight" in state  # q, k, v apart; EVA-01 has them fused
    renamed = {}
    for key, value in state.items():
        if key.startswith("visual."):
            for pattern, replacement in _EVA_RENAMES:
                key = pattern.sub(replacement, key)
            if separate:
                key = _SEPARATE_BIAS.sub(r".attn.\1_proj.bias", key)
        renamed[key] = value
    return renamed


def load_exactly(module: nn.Module, state: Mapping[str, torch.Tensor], source: str, advice: str | None = None) -> None:
    """Load every key, or nothing.

    Raises:
        WeightsMismatchError: with the full lists of missing, unexpected and misshapen keys;
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
