"""Choosing which weights of a CLIP tower's attention learn."""

from collections.abc import Collection

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import parametrize

from ...construction import DenseEncoder, ValueModule
from ...structures import ConfigurationError
from .options import TowerTraining

_PARTS = ("q", "k", "v")


def train_image_tower(encoder: DenseEncoder, training: TowerTraining) -> None:
    """Freeze an encoder except for the projections that `training` names; the gates stay frozen too.

    Of the last block only those learn that the construction uses. (In CAT-Seg its q has a gradient of zero and merely
    decays.)
    """
    encoder.requires_grad_(False)
    module = encoder.construction.module
    used = {"v", *module.self_correlated, *("qk" if module is ValueModule.QK_ATTENTION else "")}
    _train_attention(encoder.tower, training, used)


def train_text_tower(text: nn.Module, training: TowerTraining) -> None:
    """The same for a text tower, which uses all of its blocks whole."""
    text.requires_grad_(False)
    _train_attention(text, training, _PARTS)


def _train_attention(tower: nn.Module, training: TowerTraining, last: Collection[str]) -> None:
    if training is TowerTraining.NONE:
        return
    layers = [module for module in tower.modules() if _is_attention(module)]
    if not layers:
        raise ConfigurationError(f"{type(tower).__name__} has no attention that could learn (MODEL.CATSEG.TRAIN).")
    for layer in layers:
        parts = [p for p in _PARTS if p in training.value and (layer is not layers[-1] or p in last)]
        if isinstance(layer, nn.MultiheadAttention):
            _train_rows(layer, "in_proj_weight", parts)
        elif isinstance(getattr(layer, "qkv", None), nn.Linear):
            _train_rows(layer.qkv, "weight", parts)
        else:
            for part in parts:
                getattr(layer, f"{part}_proj").weight.requires_grad_(True)


def _is_attention(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return module.in_proj_weight is not None
    return isinstance(getattr(module, "qkv", None), nn.Linear) or all(
        isinstance(getattr(module, f"{part}_proj", None), nn.Linear) for part in _PARTS
    )


class _Stacked(nn.Module):
    """q, k and v of a joint projection as parameters of their own."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.cat([q, k, v])

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part.clone() for part in weight.chunk(3))


def _train_rows(layer: nn.Module, name: str, parts: Collection[str]) -> None:
    """Let only some of the rows of a joint (3 D, D) projection learn; state dicts keep its name.

    A masked gradient would not do: the weight decay would still shrink the other rows.
    """
    if len(parts) == 3:
        getattr(layer, name).requires_grad_(True)
        return
    if not parts:
        return
    parametrize.register_parametrization(layer, name, _Stacked())
    originals = layer.parametrizations[name]
    for i, part in enumerate(_PARTS):
        getattr(originals, f"original{i}").requires_grad_(part in parts)
    inside = [f"parametrizations.{name}.original{i}" for i in range(3)]

    def join(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        if prefix + inside[0] in state:
            state[prefix + name] = torch.cat([_whole(state.pop(prefix + one)) for one in inside])

    def split(module: nn.Module, state: dict, prefix: str, *_) -> None:
        if prefix + name in state:
            parts = _whole(state.pop(prefix + name)).chunk(3)
            for i, (one, part) in enumerate(zip(inside, parts, strict=True)):
                own = getattr(originals, f"original{i}")
                shared = isinstance(own, DTensor)
                state[prefix + one] = distribute_tensor(part, own.device_mesh, own.placements) if shared else part

    layer.register_state_dict_post_hook(join)
    layer.register_load_state_dict_pre_hook(split)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that processes share (SOLVER.SHARDING), as each of them needs it here; all call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
