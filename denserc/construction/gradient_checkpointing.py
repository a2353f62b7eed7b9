"""Gradient checkpointing of transformer blocks.

Every choice gives bitwise identical gradients; memory and time differ.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


class GradientCheckpointing(Enum):
    """Parts of a block that the backward pass recomputes."""

    NONE = "none"
    SELECTIVE = "selective"
    """Norms, activations, rotations, copies: about half of what is kept, for a few percent of the time. Matrix products
    and attention are kept, but for a block's last product, which its backward pass does not look at."""
    FULL = "full"
    """Whole blocks but for their inputs: a tenth of what is kept, for one more forward."""
    AUTO = "auto"
    """The first of these that fits into the free memory (`checkpointing_that_fits`); settled before a training."""


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}
_PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}  # index of the left factor


def _policy(_: Any, operation: Any, *arguments: Any, **__: Any) -> CheckpointPolicy:
    if operation in _ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    if operation in _PRODUCTS:
        right = arguments[_PRODUCTS[operation] + 1]  # (in, out)
        # A product that narrows ends an MLP. Only the residual sum uses it, and recomputation stops before it.
        return CheckpointPolicy.PREFER_RECOMPUTE if right.shape[0] > right.shape[1] else CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def run_block(block: Callable, kind: GradientCheckpointing, *arguments: Any) -> Any:
    """Call `block(*arguments)` and keep only the activations that `kind` names."""
    if kind is GradientCheckpointing.NONE or not torch.is_grad_enabled():
        return block(*arguments)
    options = {}
    if kind is GradientCheckpointing.SELECTIVE:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(block, *arguments, use_reentrant=False, **options)


KEPT_WHEN_SELECTIVE = 0.55  # of what NONE keeps, generously (EVA-02 B/16: 0.49)


def kept_bytes(encoder: nn.Module, tokens: int, autocast: torch.dtype | None = None) -> int:
    """Estimate the activations of a training forward with GradientCheckpointing.NONE, in bytes.

    All of them grow with the number of tokens, so two small inputs determine the rest.

    Args:
        encoder: A `DenseEncoder`, on any device.
        tokens: Patches of all images together.
        autocast: Autocast context of the training.
    """
    device = next(encoder.parameters()).device
    before, encoder.gradient_checkpointing = encoder.gradient_checkpointing, GradientCheckpointing.NONE
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    counts = []
    for side in (2, 6):
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor, kept=kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        images = torch.zeros(1, 3, *[side * encoder.patch_size] * 2, device=device)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with torch.enable_grad(), hooks, torch.autocast(device.type, autocast, enabled=autocast is not None):
            features = encoder(images)
            counts.append(sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own))
            del features
    encoder.gradient_checkpointing = before
    return round((counts[1] - counts[0]) / (36 - 4) * tokens)


def checkpointing_that_fits(kept: int, free: int) -> GradientCheckpointing:
    """The least checkpointing with which `kept` bytes (of `kept_bytes`) fit into four fifths of `free` bytes."""
    if kept <= 0.8 * free:
        return GradientCheckpointing.NONE
    return GradientCheckpointing.SELECTIVE if KEPT_WHEN_SELECTIVE * kept <= 0.8 * free else GradientCheckpointing.FULL
