"""Parts of a LLaVA that learn, by name: projector, language model, adapters. The vision tower never learns."""

import logging
import re
from collections import defaultdict
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlavaForConditionalGeneration

from .options import TrainedParts

logger = logging.getLogger(__name__)

PROJECTOR = "multi_modal_projector"


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters on every linear layer of the language model but its head, as in LLaVA's LoRA recipe.

    Args:
        rank: Rank of an adapter.
        alpha: Its scale, times `rank`.
        dropout: Dropout of its input.
    """

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05


def select_trained(
    model: LlavaForConditionalGeneration, parts: TrainedParts, adapters: Adapters | None = None
) -> nn.Module:
    """Let only the named parts learn.

    Args:
        model: LLaVA; it is changed.
        parts: Parts that learn.
        adapters: Needed for `TrainedParts.LORA`.

    Returns:
        The model, for LORA inside a PeftModel.
    """
    model.requires_grad_(False)
    _include_projector(model)
    if parts is TrainedParts.LORA:
        linear = [
            f"model.language_model.{name}"
            for name, module in model.model.language_model.named_modules()
            if isinstance(module, nn.Linear)
        ]
        settings = LoraConfig(
            r=adapters.rank,
            lora_alpha=adapters.alpha,
            lora_dropout=adapters.dropout,
            target_modules=linear,
            modules_to_save=[PROJECTOR],
        )
        return get_peft_model(model, settings)
    model.model.multi_modal_projector.requires_grad_(True)
    if parts is TrainedParts.LANGUAGE_MODEL:
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    return model


def describe_parts(model: nn.Module) -> str:
    """Names and counts of what learns and of what is frozen, one line per name; numbered layers share one."""
    groups: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        groups[parameter.requires_grad, re.sub(r"\.\d+\.", ".*.", name)].append(parameter.numel())
    totals = {learns: sum(sum(sizes) for key, sizes in groups.items() if key[0] is learns) for learns in (True, False)}
    lines = [f"Learning: {totals[True]:,} parameters"]
    lines += [
        f"  {name}" + (f" ({len(sizes)} tensors)" if len(sizes) > 1 else "") + f": {sum(sizes):,}"
        for (learns, name), sizes in groups.items()
        if learns
    ]
    frozen: dict[str, int] = defaultdict(int)
    for (learns, name), sizes in groups.items():
        if not learns:
            frozen[_part(name)] += sum(sizes)
    lines.append(f"Frozen: {totals[False]:,} parameters")
    return "\n".join([*lines, *(f"  {part}: {count:,}" for part, count in frozen.items())])


def parameter_groups(model: nn.Module, rate: float, projector_rate: float, decay: float) -> list[dict]:
    """Optimizer groups: the projector with its own rate, and all other learning parameters."""
    projector = [p for name, p in model.named_parameters() if p.requires_grad and PROJECTOR in name]
    others = [p for name, p in model.named_parameters() if p.requires_grad and PROJECTOR not in name]
    rates = ((others, rate), (projector, projector_rate))
    return [{"params": group, "lr": lr, "weight_decay": decay} for group, lr in rates if group]


def _part(name: str) -> str:
    """vision_tower, multi_modal_projector, language_model or lm_head of a parameter's name."""
    known = ("vision_tower", PROJECTOR, "language_model", "lm_head")
    return next((part for part in known if part in name), name)


def _include_projector(model: LlavaForConditionalGeneration) -> None:
    """Give the projector a gradient of zero in a forward pass without pictures.

    Processes that average or share gradients need one for every learning parameter in every step.
    """
    llava = model.model

    def add_nothing(_, arguments, keywords):
        embeddings = keywords.get("inputs_embeds")
        if embeddings is None or not torch.is_grad_enabled() or not llava.training:
            return None
        first = next(llava.multi_modal_projector.parameters())
        width = llava.multi_modal_projector.linear_1.in_features
        nothing = llava.multi_modal_projector(torch.zeros(1, 1, width, device=first.device, dtype=first.dtype))
        return arguments, {**keywords, "inputs_embeds": embeddings + 0.0 * nothing.sum().to(embeddings.dtype)}

    llava.language_model.register_forward_pre_hook(add_nothing, with_kwargs=True)
