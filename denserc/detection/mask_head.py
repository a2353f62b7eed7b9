"""Class-agnostic masks of detected boxes.

Shape letters: R boxes, C channels, K pooled side, M = 2 K the mask's side.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Instances
from torch import nn

from ..structures import ConfigurationError
from .normalisation import ConvNormReLU


class MaskHead(nn.Module):
    """Convolutions, upsampling by two, one logit per pixel.

    Args:
        in_channels: C of the pyramid.
        num_convs, channels: the convolutions.
        norm: builder of their normalisation, or None.
    """

    def __init__(self, *, in_channels: int, num_convs: int, channels: int, norm: Callable[[int], nn.Module] | None):
        super().__init__()
        convs = []
        for _ in range(num_convs):
            convs.append(ConvNormReLU(in_channels, channels, norm=norm and norm(channels)))
            in_channels = channels
        self.convs = nn.Sequential(*convs)
        self.upsample = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, 1, 1)
        for layer in (self.upsample, self.logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(R, C, K, K) -> logits (R, 1, M, M)."""
        if not len(pooled):  # see BoxHead.forward
            return pooled.new_zeros(0, 1, 2 * pooled.shape[-2], 2 * pooled.shape[-1])
        return self.logits(F.relu(self.upsample(self.convs(pooled))))


def mask_targets(truth: Instances, matches: torch.Tensor, boxes: torch.Tensor, side: int) -> torch.Tensor:
    """What the mask head should say of positive boxes of one image.

    Args:
        truth: with gt_masks as BitMasks over the network input.
        matches: (R,) index of each box's ground truth.
        boxes: (R, 4).
        side: M.

    Returns:
        (R, M, M) float32 of 0 and 1: RoIAlign of the bitmap, at least one half.

    Raises:
        ConfigurationError: the data set was loaded without masks or as polygons.
    """
    masks = truth.get("gt_masks") if truth.has("gt_masks") else None
    if not isinstance(masks, BitMasks):
        raise ConfigurationError(
            f"The mask head trains on bitmaps, the data give {type(masks).__name__}: set INPUT.MASK_FORMAT to "
            "'bitmask', or MODEL.MASK_ON to False for data without masks."
        )
    h, w = masks.image_size
    clipped = torch.stack([boxes[:, i].clamp(0, (w, h)[i % 2]) for i in range(4)], dim=1)
    return masks[matches].crop_and_resize(clipped, side).float()
