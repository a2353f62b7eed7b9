"""Pixel statistics: the normalization of an encoder's RGB input."""

import math
from dataclasses import dataclass

import torch

from .errors import ConfigurationError


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation per RGB channel, of pixels in 0..1.

    An encoder's statistics travel with its checkpoint. F-ViT's published configs normalize with
    ImageNet's although the encoder was trained with CLIP's; that is a setting
    of the detector, not a property of the encoder.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self):
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        finite = all(map(math.isfinite, self.mean + self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise ConfigurationError(
                f"Pixel statistics need three means and three positive deviations (RGB, pixels in 0..1); "
                f"got mean={self.mean}, std={self.std}."
            )

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize (..., 3, H, W) RGB in 0..1; shape and dtype stay."""
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        std = images.new_tensor(self.std).view(3, 1, 1)
        return (images - mean) / std

    @property
    def mean_255(self) -> tuple[float, float, float]:
        """Mean for pixels in 0..255, as in Detectron2's PIXEL_MEAN."""
        return tuple(v * 255.0 for v in self.mean)

    @property
    def std_255(self) -> tuple[float, float, float]:
        """Deviation for pixels in 0..255, as in Detectron2's PIXEL_STD."""
        return tuple(v * 255.0 for v in self.std)


CLIP_PIXELS = PixelStatistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_PIXELS = PixelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIGLIP_PIXELS = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
