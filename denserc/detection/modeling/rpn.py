"""Region proposal network: anchors, head, losses from the sampled anchors, and the choice of proposals.

Shape letters: B images, A anchors per cell, L all anchors of an image over the levels (level, y, x, ratio), S sampled
anchors, K side of a window.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, RPN_HEAD_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from ...openvocab.registry import registered
from ...structures import ConfigurationError
from .box_coding import BoxCoder
from .heads import ConvNormReLU, norm_builder
from .options import LowQualityMatch
from .postprocess import grouped_nms
from .sampling import IoUMatcher, RandomSampler, Sampler

ANCHOR_SCALE = 8.0
"""Side of the square anchor in strides."""
LOW_QUALITY_IOU = 0.3
"""Least IoU of the anchors that a ground-truth box takes from other boxes."""


@ANCHOR_GENERATOR_REGISTRY.register()
class AnchorGrid(nn.Module):
    """Anchors of side scale x stride around the upper-left corner of each cell.

    Detectron2's generator places the same boxes but takes an absolute size per level; here one scale
    serves all strides, 3.5 ... 56 of a patch of 14 included.

    Args:
        strides: Pixels per cell of each level, finest first.
        scale: Side of the square anchor in strides.
        ratios: Height / width of the anchors of one cell; the area does not change with it.
    """

    @configurable
    def __init__(self, *, strides: Sequence[float], scale: float, ratios: Sequence[float]):
        super().__init__()
        self.strides = tuple(float(stride) for stride in strides)
        root = torch.tensor([float(ratio) for ratio in ratios]).sqrt()
        cells = []
        for stride in self.strides:
            half_w, half_h = 0.5 * stride * scale / root, 0.5 * stride * scale * root
            cells.append(torch.stack([-half_w, -half_h, half_w, half_h], dim=1))
        self.register_buffer("cells", torch.stack(cells), persistent=False)  # (levels, ratios, 4)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> dict:
        """Anchors of MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS at the strides of the levels."""
        strides = [shape.stride for shape in input_shape]
        ratios = cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS
        if len(ratios) != 1 or not ratios[0] or min(ratios[0]) <= 0:
            raise ConfigurationError(
                f"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS is {ratios}; expected is one list of numbers above 0, such as "
                "[[0.5, 1.0, 2.0]]."
            )
        return {"strides": strides, "scale": ANCHOR_SCALE, "ratios": ratios[0]}

    @property
    def num_cell_anchors(self) -> int:
        """Number of anchors per cell."""
        return self.cells.shape[1]

    def forward(self, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """Sizes (h, w) of the maps -> per level (h * w * ratios, 4), ordered by y, then x, then ratio."""
        anchors = []
        for (h, w), stride, cell in zip(sizes, self.strides, self.cells, strict=True):
            y = torch.arange(h, device=cell.device, dtype=cell.dtype) * stride
            x = torch.arange(w, device=cell.device, dtype=cell.dtype) * stride
            y, x = torch.meshgrid(y, x, indexing="ij")
            corner = torch.stack([x, y, x, y], dim=-1)  # (h, w, 4)
            anchors.append((corner[:, :, None] + cell).reshape(-1, 4))
        return anchors


@RPN_HEAD_REGISTRY.register()
class RPNHead(nn.Module):
    """Convolutions shared by all levels, then objectness and box differences per anchor.

    Args:
        in_channels: Channels of the pyramid and of the hidden convolutions.
        num_anchors: Number A of anchors per cell.
        num_convs: 3 x 3 convolutions with ReLU.
        norm: Builder of a normalization after each convolution (one for all levels), or None.
    """

    @configurable
    def __init__(self, *, in_channels: int, num_anchors: int, num_convs: int, norm: Callable[[int], nn.Module] | None):
        super().__init__()
        self.convs = nn.Sequential(
            *(ConvNormReLU(in_channels, in_channels, norm=norm and norm(in_channels)) for _ in range(num_convs))
        )
        self.objectness = nn.Conv2d(in_channels, num_anchors, 1)
        self.deltas = nn.Conv2d(in_channels, num_anchors * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec], num_anchors: int) -> dict:
        """As many convolutions as MODEL.RPN.CONV_DIMS has entries, MODEL.FVIT.RPN.NORM."""
        return {
            "in_channels": input_shape[0].channels,
            "num_anchors": num_anchors,
            "num_convs": len(cfg.MODEL.RPN.CONV_DIMS),
            "norm": norm_builder(cfg.MODEL.FVIT.RPN.NORM, "MODEL.FVIT.RPN.NORM"),
        }

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Maps (B, C, h, w) -> per level objectness logits (B, h * w * A) and differences (B, h * w * A, 4)."""
        logits, deltas = [], []
        for feature in features:
            hidden = self.convs(feature)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            # (B, A * 4, h, w) -> (B, h, w, A * 4) -> (B, h * w * A, 4)
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4))
        return logits, deltas

    @property
    def num_anchors(self) -> int:
        """A."""
        return self.objectness.out_channels

    @property
    def local(self) -> bool:
        """True if an anchor's prediction depends only on the cells around it: no normalization."""
        return not any(hasattr(conv, "norm") for conv in self.convs)


def predict_at(
    head: nn.Module, features: Sequence[torch.Tensor], images: torch.Tensor, anchors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict at some anchors, with gradients to the head's weights and to the maps.

    Args:
        head: An RPNHead that is `local`.
        features: Maps (B, C, h, w), finest first.
        images: (S,) int64, the image of each anchor.
        anchors: (S,) int64, its place among all anchors of that image (level, y, x, ratio).

    Returns:
        Logits (S,) and differences (S, 4), in the order given: the head's own but for rounding.
    """
    cells, ratios = anchors // head.num_anchors, anchors % head.num_anchors
    reach, first = len(head.convs), 0
    windows, insides, places = [], [], []
    for feature in features:
        size = feature.shape[-2] * feature.shape[-1]
        if feature.requires_grad and feature.is_contiguous():
            # Gathered rows hand back a gradient in channels-last order, which the backward pass of a pyramid of planes
            # would carry on, slower and in its norms less exact.
            feature.register_hook(torch.Tensor.contiguous)
        here = ((cells >= first) & (cells < first + size)).nonzero().flatten()
        window, inside = cut_windows(feature, images[here], cells[here] - first, reach)
        windows.append(window)
        insides.append(inside)
        places.append(here)
        first += size
    hidden, inside = torch.cat(windows), torch.cat(insides)  # (S, C, K, K), (S, 1, K, K)
    for conv in head.convs:
        # Beyond the map the next convolution reads zeros, not what this one makes of the cells near the border.
        inside = inside[:, :, 1:-1, 1:-1]
        hidden = F.relu(F.conv2d(hidden, conv.conv.weight, conv.conv.bias)) * inside
    places = torch.cat(places)
    ratios = ratios[places]
    logits = head.objectness(hidden).flatten(1).gather(1, ratios[:, None])[:, 0]
    deltas = head.deltas(hidden).flatten(1).unflatten(1, (head.num_anchors, 4))  # (S, A, 4)
    deltas = deltas[torch.arange(len(ratios), device=ratios.device), ratios]
    order = places.argsort()
    return logits[order], deltas[order]


def cut_windows(
    feature: torch.Tensor, images: torch.Tensor, cells: torch.Tensor, reach: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut square windows of one map around some cells, zeros beyond its border.

    Args:
        feature: (B, C, h, w).
        images, cells: (S,) int64: which image, and y * w + x.
        reach: Cells on each side of the middle one.

    Returns:
        (S, C, K, K) in channels-last order, and (S, 1, K, K): 1 within the map, 0 beyond.
    """
    channels, h, w = feature.shape[1:]
    steps = torch.arange(-reach, reach + 1, device=cells.device)
    y = (cells // w)[:, None, None] + steps[:, None]  # (S, K, 1)
    x = (cells % w)[:, None, None] + steps  # (S, 1, K)
    inside = ((y >= 0) & (y < h) & (x >= 0) & (x < w)).to(feature.dtype)  # (S, K, K)
    rows = (images[:, None, None] * h + y.clamp(0, h - 1)) * w + x.clamp(0, w - 1)
    table = feature.permute(0, 2, 3, 1).reshape(-1, channels)
    # index_select, whose gradient is added row by row; that of table[rows] sorts first.
    window = table.index_select(0, rows.flatten()).view(*rows.shape, channels) * inside[..., None]
    return window.permute(0, 3, 1, 2), inside[:, None]


@PROPOSAL_GENERATOR_REGISTRY.register()
class FViTRPN(nn.Module):
    """Class-agnostic proposals.

    Proposals are ranked by sigmoid, suppressed per level and clipped to the unpadded image. The losses are sums
    over the sampled anchors: binary cross-entropy, and L1 on the differences of the positive ones.

    Args:
        in_features: Names of the levels, finest first.
        pre_nms: Number of best anchors per level, (training, test).
        post_nms: Number of proposals per image, (training, test).
        nms_iou: Overlap from which a worse proposal of the same level is dropped.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: RPNHead,
        anchors: AnchorGrid,
        coder: BoxCoder,
        matcher: IoUMatcher,
        sampler: Sampler,
        pre_nms: tuple[int, int],
        post_nms: tuple[int, int],
        nms_iou: float,
    ):
        super().__init__()
        self.in_features = list(in_features)
        self.head = head
        self.anchors = anchors
        self.coder = coder
        self.matcher = matcher
        self.sampler = sampler
        self.pre_nms = pre_nms
        self.post_nms = post_nms
        self.nms_iou = nms_iou

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        """Parts by configuration; `input_shape` is the backbone's."""
        rpn = cfg.MODEL.RPN
        levels = [name for name in input_shape if name.startswith("p")]
        shapes = [input_shape[name] for name in levels]
        grid = registered(
            ANCHOR_GENERATOR_REGISTRY, cfg.MODEL.ANCHOR_GENERATOR.NAME, "MODEL.ANCHOR_GENERATOR.NAME", AnchorGrid
        )
        head = registered(RPN_HEAD_REGISTRY, rpn.HEAD_NAME, "MODEL.RPN.HEAD_NAME", RPNHead)
        anchors = grid(cfg, shapes)
        if len(rpn.IOU_THRESHOLDS) != 2:
            raise ConfigurationError(f"MODEL.RPN.IOU_THRESHOLDS needs two values; got {rpn.IOU_THRESHOLDS}.")
        return {
            "in_features": levels,
            "head": head(cfg, shapes, num_anchors=anchors.num_cell_anchors),
            "anchors": anchors,
            "coder": BoxCoder(weights=rpn.BBOX_REG_WEIGHTS),
            "matcher": IoUMatcher(
                negative_iou=rpn.IOU_THRESHOLDS[0],
                positive_iou=rpn.IOU_THRESHOLDS[1],
                low_quality=LowQualityMatch.OVERWRITE,
                low_quality_iou=LOW_QUALITY_IOU,
            ),
            "sampler": RandomSampler(num=rpn.BATCH_SIZE_PER_IMAGE, positive_fraction=rpn.POSITIVE_FRACTION),
            "pre_nms": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_iou": rpn.NMS_THRESH,
        }

    def forward(
        self, images: ImageList, features: dict[str, torch.Tensor], truth: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Features of a batch -> proposals and, in training, losses.

        Args:
            images: Images, used for their unpadded sizes.
            truth: Instances with gt_boxes, per image; needed in training.

        Returns:
            Instances with proposal_boxes and scores (sigmoid), best first; and loss_rpn_cls, loss_rpn_loc.
        """
        levels = [features[name] for name in self.in_features]
        anchors = self.anchors([tuple(level.shape[-2:]) for level in levels])
        # Proposals need no gradient, and the losses use a few hundred of some 100,000 anchors. Where these can be
        # predicted by themselves, the head has no backward pass over the whole maps: 80 of about 320 G
        # multiply-accumulates less in a step of B/16's heads (docs/SPEED.md). GPU: not measured.
        apart = self.training and self.head.local
        with torch.no_grad() if apart else nullcontext():
            logits, deltas = self.head(levels)
        losses = self.losses(logits, deltas, anchors, truth, levels if apart else None) if self.training else {}
        return self.proposals(logits, deltas, anchors, images.image_sizes), losses

    def losses(
        self,
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        anchors: list[torch.Tensor],
        truth: list[Instances],
        levels: list[torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """loss_rpn_cls and loss_rpn_loc of a batch.

        Args:
            logits, deltas: Output of the head.
            anchors: Output of the anchor grid.
            truth: Instances with gt_boxes, per image.
            levels: The head's input, from which the sampled anchors are predicted once more, with a gradient; the
                head must be `local`. None: the gradient goes through `logits` and `deltas`.
        """
        all_anchors = torch.cat(anchors)  # (L, 4)
        all_logits, all_deltas = torch.cat(logits, dim=1), torch.cat(deltas, dim=1)  # (B, L), (B, L, 4)
        images, chosen, labels, targets = [], [], [], []
        num_positive = num_negative = 0
        for image, image_truth in enumerate(truth):
            boxes = image_truth.gt_boxes.tensor
            matches = self.matcher(all_anchors, boxes)
            positive, negative = self.sampler(matches)
            targets.append(self.coder.encode(all_anchors[positive], boxes[matches[positive]]))
            chosen.append(torch.cat([positive, negative]))
            labels.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]))
            images.append(torch.full_like(chosen[-1], image))
            # MMDetection counts an image without positives (or negatives) as one.
            num_positive += max(len(positive), 1)
            num_negative += max(len(negative), 1)
        images, chosen, labels = torch.cat(images), torch.cat(chosen), torch.cat(labels)
        if levels is None:
            values, differences = all_logits[images, chosen], all_deltas[images, chosen]
        else:
            values, differences = predict_at(self.head, levels, images, chosen)
        # The sums at weight 0: with nothing sampled there is a graph still, and what is not finite is noticed.
        class_loss = all_logits.sum() * 0.0 + F.binary_cross_entropy_with_logits(
            values, labels.to(values.dtype), reduction="sum"
        )
        box_loss = all_deltas.sum() * 0.0 + F.l1_loss(differences[labels > 0], torch.cat(targets), reduction="sum")
        count = num_positive + num_negative
        if has_event_storage():
            get_event_storage().put_scalar("rpn/num_positive_anchors", num_positive / len(truth))
        return {"loss_rpn_cls": class_loss / count, "loss_rpn_loc": box_loss / count}

    @torch.no_grad()
    def proposals(
        self,
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        anchors: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Select the best boxes of each image, without gradient."""
        post_nms = self.post_nms[0 if self.training else 1]
        results = []
        for i, size in enumerate(image_sizes):
            box, score, group = self.candidates([one[i] for one in logits], [one[i] for one in deltas], anchors, size)
            # A clipped box may have become empty; a diverged training is reported by its losses, not here.
            valid = ((box[:, 2:] - box[:, :2]) > 0).all(dim=1) & torch.isfinite(box).all(dim=1) & torch.isfinite(score)
            box, score, group = box[valid], score[valid], group[valid]
            kept = grouped_nms(box, score, group, iou=self.nms_iou, limit=post_nms)
            results.append(Instances(size, proposal_boxes=Boxes(box[kept]), scores=score[kept]))
        return results

    def candidates(
        self,
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        anchors: list[torch.Tensor],
        image_size: tuple[int, int] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode the best anchors of each level of one image, before suppression.

        Args:
            logits, deltas: Per level (h * w * A,) and (h * w * A, 4).
            anchors: Per level, as the anchor grid gives them.
            image_size: (h, w) to clip to; None: not clipped.

        Returns:
            S boxes (S, 4), sigmoid scores (S,), best first within a level, and levels (S,) int64.
        """
        pre_nms = self.pre_nms[0 if self.training else 1]
        boxes, scores, levels = [], [], []
        for level, (level_logits, level_deltas, level_anchors) in enumerate(zip(logits, deltas, anchors, strict=True)):
            level_scores, order = level_logits.float().sigmoid().sort(descending=True, stable=True)
            order = order[:pre_nms]
            boxes.append(self.coder.decode(level_anchors[order], level_deltas[order], image_size))
            scores.append(level_scores[:pre_nms])
            levels.append(torch.full_like(order, level))
        return torch.cat(boxes), torch.cat(scores), torch.cat(levels)
