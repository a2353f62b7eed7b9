"""Backbone: the frozen dense encoder with the trained pyramid on top.

Shape letters: B images, (H, W) pixels, (h, w) patch grid, D the tower's width, E the image-text space, C channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from ...construction import build_dense_model
from ...engine import Precision, resolve_device
from ...structures import ConfigurationError, choose
from .feature_cache import CachePrecision, FeatureCache
from .heads import norm_builder
from .pyramid import FeaturePyramid, MapUpsampler

DENSE = "dense"


class FViTBackbone(Backbone):
    """Frozen DenseEncoder -> four maps at four strides -> feature pyramid of five; and the dense map itself.

    The encoder, its gates included, is always in eval mode, runs without gradient and has no trainable parameter.

    Args:
        encoder: A denserc.construction.DenseEncoder, or a module with patch_size, embed_dim, width and
            forward_with_maps(images, blocks, dense) as it does.
        blocks: Indices of the four blocks whose residual stream is used.
        upsampler, pyramid: The trained parts.
        out_channels: C of the pyramid.
        precision: Precision of the encoder's arithmetic; its weights and output maps are float32.
        cache: Cache of the encoder's maps in training; None computes them each time.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        blocks: Sequence[int],
        upsampler: MapUpsampler,
        pyramid: FeaturePyramid,
        out_channels: int,
        precision: Precision = Precision.FP32,
        cache: FeatureCache | None = None,
    ):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.blocks = tuple(blocks)
        self.upsampler = upsampler
        self.pyramid = pyramid
        self.precision = precision
        self.cache = cache
        patch = encoder.patch_size
        strides = [patch / scale for scale in MapUpsampler.SCALES]
        strides.append(strides[-1] * 2)
        self._shapes = {
            f"p{i + 2}": ShapeSpec(channels=out_channels, stride=stride) for i, stride in enumerate(strides)
        }
        self._shapes[DENSE] = ShapeSpec(channels=encoder.embed_dim, stride=patch)

    @classmethod
    def from_encoder(cls, cfg, encoder: nn.Module, about: str = "") -> "FViTBackbone":
        """The trained parts from the configuration, over a built encoder.

        Args:
            about: Identity of the encoder, for the cache of its maps.
        """
        blocks = cfg.MODEL.FVIT.BLOCKS
        if len(blocks) != len(MapUpsampler.SCALES):
            raise ConfigurationError(f"MODEL.FVIT.BLOCKS needs {len(MapUpsampler.SCALES)} block indices; got {blocks}.")
        norm = norm_builder(cfg.MODEL.FPN.NORM, "MODEL.FPN.NORM")
        if norm is None:
            raise ConfigurationError("MODEL.FPN.NORM must name a normalization, as the upsampler has one; got ''.")
        precision = choose(Precision, cfg.MODEL.FVIT.BACKBONE_PRECISION, "MODEL.FVIT.BACKBONE_PRECISION")
        precision.require_device(resolve_device(cfg.MODEL.DEVICE), "MODEL.FVIT.BACKBONE_PRECISION")
        channels = cfg.MODEL.FPN.OUT_CHANNELS
        return cls(
            encoder=encoder,
            blocks=blocks,
            upsampler=MapUpsampler(width=encoder.width, norm=norm),
            pyramid=FeaturePyramid(in_channels=encoder.width, out_channels=channels, num_inputs=len(blocks), norm=norm),
            out_channels=channels,
            precision=precision,
            cache=_feature_cache(cfg, encoder, about),
        )

    def train(self, mode: bool = True) -> "FViTBackbone":
        """Only the trained parts follow `mode`; the encoder stays in eval."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: torch.Tensor, views: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) normalized images; H and W multiples of the patch size.

        Args:
            views: In training, the name of each image (`view_digest`). Each is then encoded by itself, so that its maps
                are bitwise independent of other images, and taken from the cache, if there is one.

        Returns:
            "p2" ... "p6": (B, C, ., .) at strides patch / 4 ... 4 x patch; outside of training also
            "dense": (B, E, h, w), the encoder's dense features, L2-normalized.
        """
        if views is None:
            dense, maps = self._encode(images)
        else:
            alone = [self._view_maps(images[i : i + 1], view) for i, view in enumerate(views)]
            dense, maps = None, [torch.cat(level) for level in zip(*alone, strict=True)]
        levels = self.pyramid.from_projected(self.upsampler.projected(maps, self.pyramid.projections))
        features = dict(zip(self._shapes, levels, strict=False))  # the dense map's name is the last and stays over
        if dense is not None:
            features[DENSE] = F.normalize(dense.float(), dim=1)
        return features

    @torch.no_grad()
    def _encode(self, images: torch.Tensor) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The dense map (outside of training) and the four blocks' maps, float32 under any autocast."""
        dtype = self.precision.dtype
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            dense, maps = self.encoder.forward_with_maps(images, self.blocks, dense=not self.training)
        maps = [one.float() for one in maps]
        if self.training and images.device.type == "cpu":
            # For exactness, not speed: a tower's tokens are channels-last maps, and PyTorch's batch statistics in that
            # order are 50 times less exact on a CPU.
            maps = [one.contiguous() for one in maps]
        return dense, maps

    def _view_maps(self, image: torch.Tensor, view: str) -> list[torch.Tensor]:
        def compute() -> list[torch.Tensor]:
            # The order in memory decides which kernels run on the maps; a file has lost it.
            return [one.contiguous() for one in self._encode(image)[1]]

        return compute() if self.cache is None else self.cache.maps(view, image.device, compute)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides by name; a stride may be fractional."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """The patch size."""
        return self.encoder.patch_size


def _feature_cache(cfg, encoder: nn.Module, about: str) -> FeatureCache | None:
    settings = cfg.MODEL.FVIT.CACHE
    precision = choose(CachePrecision, settings.PRECISION, "MODEL.FVIT.CACHE.PRECISION")
    if not settings.DIR:
        return None
    low, high = cfg.INPUT.SCALE_JITTER
    if cfg.INPUT.FIXED_VIEWS == 0 and low != high:
        raise ConfigurationError(
            f"MODEL.FVIT.CACHE.DIR is set, but INPUT.SCALE_JITTER {[low, high]} draws another view of an image at "
            "every visit, so that nothing is found again. Set INPUT.FIXED_VIEWS to the number of views that an image "
            "is to have, or INPUT.SCALE_JITTER to [1.0, 1.0] (two views, by the flip)."
        )
    pixels = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    about = f"{about} {list(cfg.MODEL.FVIT.BLOCKS)} {cfg.MODEL.FVIT.BACKBONE_PRECISION} {pixels}"
    return FeatureCache(settings.DIR, limit_gb=settings.LIMIT_GB, precision=precision, about=about, encoder=encoder)


@BACKBONE_REGISTRY.register()
def build_fvit_backbone(cfg, input_shape: ShapeSpec | None = None) -> FViTBackbone:
    """For use in another meta-architecture; FViT itself builds encoder and text tower together."""
    return FViTBackbone.from_encoder(cfg, build_dense_model(cfg).encoder)
