"""Box head and mask head over pooled features, the targets of masks, and the convolutions both are made of.

Shape letters: R regions, C channels, K pooled side, M = 2 K side of a mask, F hidden width, E the image-text space.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.structures import BitMasks, Instances
from detectron2.utils import comm
from torch import nn

from ...structures import ConfigurationError

NORMS = ("", "BN", "SyncBN", "GN", "LN", "FrozenBN")


def norm_builder(name: str, key: str) -> Callable[[int], nn.Module] | None:
    """Build a function from a number of channels to a fresh layer; None for "", no normalization.

    "SyncBN" shares its statistics between processes; with a single one, and so on a CPU, it is plain BN. The
    parameters carry the same names in both.

    Args:
        key: The configuration key, for the message.
    """
    if name not in NORMS:
        raise ConfigurationError(f"{key} is {name!r}; legal are {', '.join(map(repr, NORMS))}.")
    if not name:
        return None
    if name == "SyncBN" and comm.get_world_size() == 1:
        name = "BN"
    return lambda channels: get_norm(name, channels)


class ConvNormReLU(nn.Sequential):
    """Convolution (same size), normalization, ReLU; the convolution has a bias only without normalization.

    Args:
        norm: A layer from `norm_builder`, or None. It may be shared with other convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3, norm: nn.Module | None = None):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm is None)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if norm is None:
            nn.init.zeros_(self.conv.bias)
        else:
            self.norm = norm
        self.activation = nn.ReLU(inplace=True)


@ROI_MASK_HEAD_REGISTRY.register()
class MaskHead(nn.Module):
    """Convolutions, upsampling by two, one logit per pixel.

    Args:
        in_channels: C of the pyramid.
        num_convs, channels: Number of convolutions and their channels.
        norm: Builder of their normalization, or None.
    """

    @configurable
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

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        """MODEL.ROI_MASK_HEAD's convolutions over pooled maps of this shape."""
        settings = cfg.MODEL.ROI_MASK_HEAD
        return {
            "in_channels": input_shape.channels,
            "num_convs": settings.NUM_CONV,
            "channels": settings.CONV_DIM,
            "norm": norm_builder(settings.NORM, "MODEL.ROI_MASK_HEAD.NORM"),
        }

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(R, C, K, K) -> logits (R, 1, M, M)."""
        if not len(pooled):  # see BoxHead.forward
            return pooled.new_zeros(0, 1, 2 * pooled.shape[-2], 2 * pooled.shape[-1])
        return self.logits(F.relu(self.upsample(self.convs(pooled))))


def mask_targets(truth: Instances, matches: torch.Tensor, boxes: torch.Tensor, side: int) -> torch.Tensor:
    """Compute the mask head's targets for the positive boxes of one image.

    Args:
        truth: Instances with gt_masks as BitMasks over the network input.
        matches: (R,) index of each box's ground truth.
        boxes: (R, 4) boxes in pixels of the network input.
        side: Side M of the targets.

    Returns:
        (R, M, M) float32 of 0 and 1: RoIAlign of the bitmap, at least one half.

    Raises:
        ConfigurationError: The data set was loaded without masks or as polygons.
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


@ROI_BOX_HEAD_REGISTRY.register()
class BoxHead(nn.Module):
    """Shared convolutions and fully connected layers, then one layer each for class and for box.

    Args:
        in_channels: C of the pyramid.
        resolution: Side K of the pooled maps.
        num_convs, conv_channels: Number of shared convolutions and their channels.
        num_fcs, fc_width: Number of shared fully connected layers and their width F.
        embed_dim: Width E of the text embeddings.
        norm: Builder of the convolutions' normalization, or None.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        resolution: int,
        num_convs: int,
        conv_channels: int,
        num_fcs: int,
        fc_width: int,
        embed_dim: int,
        norm: Callable[[int], nn.Module] | None,
    ):
        super().__init__()
        convs = []
        for _ in range(num_convs):
            convs.append(ConvNormReLU(in_channels, conv_channels, norm=norm and norm(conv_channels)))
            in_channels = conv_channels
        self.convs = nn.Sequential(*convs)
        width = in_channels * resolution**2
        fcs = []
        for _ in range(num_fcs):
            fcs.append(nn.Linear(width, fc_width))
            width = fc_width
        self.fcs = nn.ModuleList(fcs)
        self.class_fc = nn.Linear(width, embed_dim)
        self.box_fc = nn.Linear(width, fc_width)
        self.deltas = nn.Linear(fc_width, 4)
        for fc in [*self.fcs, self.class_fc, self.box_fc]:
            nn.init.xavier_uniform_(fc.weight)
            nn.init.zeros_(fc.bias)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.deltas.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec, embed_dim: int) -> dict:
        """MODEL.ROI_BOX_HEAD's layers over pooled maps of this shape; FC_DIM 0 is the image-text space's width."""
        settings = cfg.MODEL.ROI_BOX_HEAD
        return {
            "in_channels": input_shape.channels,
            "resolution": input_shape.height,
            "num_convs": settings.NUM_CONV,
            "conv_channels": settings.CONV_DIM,
            "num_fcs": settings.NUM_FC,
            "fc_width": settings.FC_DIM or embed_dim,
            "embed_dim": embed_dim,
            "norm": norm_builder(settings.NORM, "MODEL.ROI_BOX_HEAD.NORM"),
        }

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, C, K, K) -> class features (R, E), after a ReLU as in MMDetection F-ViT, and differences (R, 4)."""
        if not self.training:
            # The order that convolutions compute in: reordered once, not before and after each. The head takes 13% less
            # time on a CPU (docs/SPEED.md); GPU: not measured. Not in training: on a CPU PyTorch's batch statistics in
            # this order are 50 times less exact.
            pooled = pooled.contiguous(memory_format=torch.channels_last)
        # Normalization over no element at all would turn its running statistics to NaN.
        hidden = self.convs(pooled) if len(pooled) else pooled.new_zeros(0, self._flat_width())
        hidden = hidden.flatten(1)
        for fc in self.fcs:
            hidden = F.relu(fc(hidden))  # (R, F)
        return F.relu(self.class_fc(hidden)), self.deltas(F.relu(self.box_fc(hidden)))

    def _flat_width(self) -> int:
        first = self.fcs[0] if len(self.fcs) else self.class_fc
        return first.in_features
