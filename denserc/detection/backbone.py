"""The frozen dense encoder with the trained pyramid on top.

Shape letters: B images, (H, W) pixels, (h, w) patch grid, D the tower's width, E the image-text space, C channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from ..construction import build_dense_model
from ..structures import ConfigurationError
from .fpn import FeaturePyramid
from .normalisation import norm_builder
from .upsampler import MapUpsampler

DENSE = "dense"


class FViTBackbone(Backbone):
    """Frozen DenseEncoder -> four maps at four strides -> feature pyramid of five; and the dense map itself.

    The encoder, its gates included, is always in eval mode, runs without gradient and has no trainable parameter.

    Args:
        encoder: denserc.construction.DenseEncoder, or what offers patch_size, embed_dim, width and
            forward_with_maps(images, blocks, dense) as it does.
        blocks: indices of the four blocks whose residual stream is used.
        upsampler, pyramid: the trained parts.
        out_channels: C of the pyramid.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        blocks: Sequence[int],
        upsampler: MapUpsampler,
        pyramid: FeaturePyramid,
        out_channels: int,
    ):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.blocks = tuple(blocks)
        self.upsampler = upsampler
        self.pyramid = pyramid
        patch = encoder.patch_size
        strides = [patch / scale for scale in MapUpsampler.SCALES]
        strides.append(strides[-1] * 2)
        self._shapes = {
            f"p{i + 2}": ShapeSpec(channels=out_channels, stride=stride) for i, stride in enumerate(strides)
        }
        self._shapes[DENSE] = ShapeSpec(channels=encoder.embed_dim, stride=patch)

    @classmethod
    def from_encoder(cls, cfg, encoder: nn.Module) -> "FViTBackbone":
        """The trained parts from the configuration, over a built encoder."""
        blocks = cfg.MODEL.FVIT.BLOCKS
        if len(blocks) != len(MapUpsampler.SCALES):
            raise ConfigurationError(f"MODEL.FVIT.BLOCKS needs {len(MapUpsampler.SCALES)} block indices; got {blocks}.")
        norm = norm_builder(cfg.MODEL.FPN.NORM, "MODEL.FPN.NORM")
        upsampler_norm = norm_builder(cfg.MODEL.FVIT.UPSAMPLER_NORM, "MODEL.FVIT.UPSAMPLER_NORM")
        if upsampler_norm is None:
            raise ConfigurationError("MODEL.FVIT.UPSAMPLER_NORM must name a normalisation; got ''.")
        channels = cfg.MODEL.FPN.OUT_CHANNELS
        return cls(
            encoder=encoder,
            blocks=blocks,
            upsampler=MapUpsampler(width=encoder.width, norm=upsampler_norm),
            pyramid=FeaturePyramid(in_channels=encoder.width, out_channels=channels, num_inputs=len(blocks), norm=norm),
            out_channels=channels,
        )

    def train(self, mode: bool = True) -> "FViTBackbone":
        """Only the trained parts follow `mode`; the encoder stays in eval."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) normalised images; H and W multiples of the patch size.

        Returns:
            "p2" ... "p6": (B, C, ., .) at strides patch / 4 ... 4 x patch; outside of training also
            "dense": (B, E, h, w), the encoder's dense features, L2-normalised.
        """
        with torch.no_grad():
            dense, maps = self.encoder.forward_with_maps(images, self.blocks, dense=not self.training)
        levels = self.pyramid(self.upsampler(maps))
        features = dict(zip(self._shapes, levels, strict=False))  # the dense map's name is the last and stays over
        if dense is not None:
            features[DENSE] = F.normalize(dense.float(), dim=1)
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides by name; a stride may be fractional."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """The patch size."""
        return self.encoder.patch_size


@BACKBONE_REGISTRY.register()
def build_fvit_backbone(cfg, input_shape: ShapeSpec | None = None) -> FViTBackbone:
    """For use in another meta-architecture; FViT itself builds encoder and text tower together."""
    return FViTBackbone.from_encoder(cfg, build_dense_model(cfg).encoder)
