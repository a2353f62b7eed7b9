"""Weights of the original F-ViT (MMDetection's key format) in ours."""

import re
from collections.abc import Mapping

import torch

from ..encoders import to_open_clip_keys
from ..structures import CheckpointError

_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^backbone\.interpolate1\.", "backbone.upsampler.branches.0."),
        (r"^backbone\.interpolate2\.0\.", "backbone.upsampler.branches.1."),
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"backbone.pyramid.laterals.\1.0."),
        (r"^neck\.lateral_convs\.(\d+)\.bn\.", r"backbone.pyramid.laterals.\1.1."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"backbone.pyramid.outputs.\1.0."),
        (r"^neck\.fpn_convs\.(\d+)\.bn\.", r"backbone.pyramid.outputs.\1.1."),
        (r"^rpn_head\.rpn_conv\.(\d+)\.conv\.", r"proposal_generator.head.convs.\1.conv."),
        (r"^rpn_head\.rpn_conv\.(\d+)\.bn\.", r"proposal_generator.head.convs.\1.norm."),
        (r"^rpn_head\.rpn_cls\.", "proposal_generator.head.objectness."),
        (r"^rpn_head\.rpn_reg\.", "proposal_generator.head.deltas."),
        (r"^roi_head\.bbox_head\.shared_convs\.(\d+)\.conv\.", r"roi_heads.box_head.convs.\1.conv."),
        (r"^roi_head\.bbox_head\.shared_convs\.(\d+)\.bn\.", r"roi_heads.box_head.convs.\1.norm."),
        (r"^roi_head\.bbox_head\.shared_fcs\.", "roi_heads.box_head.fcs."),
        (r"^roi_head\.bbox_head\.cls_fcs\.0\.", "roi_heads.box_head.class_fc."),
        (r"^roi_head\.bbox_head\.reg_fcs\.0\.", "roi_heads.box_head.box_fc."),
        (r"^roi_head\.bbox_head\.fc_reg\.", "roi_heads.box_head.deltas."),
        (r"^roi_head\.bbox_head\.detect_temperature$", "roi_heads.classifier.temperature"),
        (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"roi_heads.mask_head.convs.\1.conv."),
        (r"^roi_head\.mask_head\.convs\.(\d+)\.bn\.", r"roi_heads.mask_head.convs.\1.norm."),
        (r"^roi_head\.mask_head\.upsample\.", "roi_heads.mask_head.upsample."),
        (r"^roi_head\.mask_head\.conv_logits\.", "roi_heads.mask_head.logits."),
    )
)
# Computed from the architecture, or never used by the original's own forward.
_DROPPED = re.compile(r"\.rope\.freqs_(cos|sin)$|^roi_head\.bbox_head\.fc_cls\.")
_EMBEDDINGS = "roi_head.bbox_head.all_embeddings"
_VISUAL, _OUR_VISUAL = "backbone.visual.", "backbone.encoder.tower.visual."


def from_mmdetection(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A published detector's state dict in our names.

    Args:
        state: the "state_dict" of a published file.

    Returns:
        Our state dict of the trained parts and the image tower, without the text tower, which the published files do
        not have; and the classes' text embeddings (C + 1, E), background last. Which classes they are, and which of
        them are novel, only the class lists beside the file say.

    Raises:
        CheckpointError: keys that no published F-ViT has.
    """
    visual = {
        key.removeprefix("backbone."): value
        for key, value in state.items()
        if key.startswith(_VISUAL) and not _DROPPED.search(key)
    }
    converted = {_OUR_VISUAL + key.removeprefix("visual."): value for key, value in to_open_clip_keys(visual).items()}
    unknown = []
    for key, value in state.items():
        if key.startswith(_VISUAL) or _DROPPED.search(key) or key == _EMBEDDINGS:
            continue
        new = original_to_ours(key)
        if new is None:
            unknown.append(key)
        else:
            converted[new] = value
    if unknown or _EMBEDDINGS not in state:
        raise CheckpointError(
            f"This is no F-ViT of the original: unknown keys {sorted(unknown)[:20]} ({len(unknown)}), "
            f"{_EMBEDDINGS} {'held' if _EMBEDDINGS in state else 'absent'}."
        )
    return converted, state[_EMBEDDINGS].t().contiguous()


def original_to_ours(key: str) -> str | None:
    """Our name of a trained parameter or buffer of the original; None if it has none."""
    for pattern, replacement in _RULES:
        if pattern.search(key):
            return pattern.sub(replacement, key)
    return None
