"""Eq. 18 of the paper's supplement: the error against the teacher's class token, by its parts.

The comparison is made where teacher and student meet in training: after the final norm and projection, features and
targets of unit length. There |feature - c|^2 is 2 (1 - cosine), and no scale has to be fitted.

Shape letters as in `denserc.analysis.interference`.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..construction.dense import DenseEncoder
from ..structures import ConfigurationError
from .interference import Parts
from .linearised import Linearised


@dataclass
class Alignment:
    """The terms of Eq. 18 for R patches, (R,), and what they compare.

    Args:
        error: |feature_r - c_r|^2, which is 2 (1 - cosine): twice the distillation's loss per patch.
        rest: |D_r|^2, the error's part without the off-target part (T_on - eps_r).
        off: |off|^2.
        cross: 2 <D_r, off>; error = rest + off + cross. All three are NaN where the way into the text space cannot be
            split (SigLIP's head, a final MLP) and there is an off-target part.
        error_without_off: |feature'_r - c_r|^2 of the feature with its off-target part taken out before the norm.
        feature, target: (R, E), of unit length.
    """

    error: torch.Tensor
    rest: torch.Tensor
    off: torch.Tensor
    cross: torch.Tensor
    error_without_off: torch.Tensor
    feature: torch.Tensor
    target: torch.Tensor


@torch.no_grad()
def alignment(encoder: DenseEncoder, parts: Parts, targets: torch.Tensor) -> Alignment:
    """Eq. 18 for measured patches.

    Args:
        encoder: Encoder whose features `parts` split.
        parts: Contributions to R patches.
        targets: (R, E) c_r, the teacher's class token of the crop of each patch's region; of any length.
    """
    targets = F.normalize(targets, dim=-1)
    off = parts.off.sum(0)
    feature, without = (_into_text_space(encoder, x) for x in (parts.whole, parts.whole - off))  # (R, E)
    off = _share_of_off(encoder, parts.whole, off) / feature.norm(dim=-1, keepdim=True)
    feature = F.normalize(feature, dim=-1)
    difference = feature - targets
    rest = difference - off
    return Alignment(
        error=difference.square().sum(-1),
        rest=rest.square().sum(-1),
        off=off.square().sum(-1),
        cross=2 * (rest * off).sum(-1),
        error_without_off=(F.normalize(without, dim=-1) - targets).square().sum(-1),
        feature=feature,
        target=targets,
    )


def _into_text_space(encoder: DenseEncoder, features: torch.Tensor) -> torch.Tensor:
    """(R, D) before a final MLP -> (R, E)."""
    x = features[None]
    if encoder.construction.final_mlp:
        x = encoder.tower.mlp(encoder.tower.depth - 1, x)
    return encoder.tower.to_text_space(x)[0]


def _share_of_off(encoder: DenseEncoder, whole: torch.Tensor, off: torch.Tensor) -> torch.Tensor:
    """(R, E): the off-target part's share of the feature in the text space; zeros where there is none."""
    example = _into_text_space(encoder, whole[:1])
    if not off.any():
        return example.new_zeros(len(whole), example.shape[-1])
    try:
        after = Linearised(lambda x: _into_text_space(encoder, x.reshape(-1, x.shape[-1])), whole)
    except ConfigurationError:
        return example.new_full((len(whole), example.shape[-1]), float("nan"))
    return after.image(off) * after.scale(whole)
