"""Region proposals: the head over each level, its losses, and the choice of proposals.

Shape letters: B images, A anchors a cell, L all anchors of an image over the levels (level, y, x, ratio).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from ..structures import ConfigurationError, choose
from .anchors import AnchorGrid
from .assignment import IoUMatcher, RandomSampler, Sampler
from .box_coding import BoxCoder
from .normalisation import ConvNormReLU, norm_builder
from .options import LowQualityMatch, RPNNormaliser, SizeClamp
from .postprocess import grouped_nms


class RPNHead(nn.Module):
    """Convolutions shared by all levels, then objectness and box differences per anchor.

    Args:
        in_channels: of the pyramid; also of the hidden convolutions.
        num_anchors: A.
        num_convs: 3 x 3 convolutions with ReLU.
        norm: builder of a normalisation after each convolution (one for all levels), or None.
    """

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

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Maps (B, C, h, w) -> per level objectness logits (B, h * w * A) and differences (B, h * w * A, 4)."""
        logits, deltas = [], []
        for feature in features:
            hidden = self.convs(feature)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            # (B, A * 4, h, w) -> (B, h, w, A * 4) -> (B, h * w * A, 4)
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4))
        return logits, deltas


@PROPOSAL_GENERATOR_REGISTRY.register()
class FViTRPN(nn.Module):
    """Class-agnostic proposals.

    Proposals are ranked by sigmoid, suppressed per level and clipped to the unpadded image. The losses are sums
    over the sampled anchors: binary cross-entropy, and L1 on the differences of the positive ones.

    Args:
        in_features: names of the levels, finest first.
        pre_nms: best anchors of each level that are looked at, (training, test).
        post_nms: proposals of an image, (training, test).
        nms_iou: overlap from which a worse proposal of the same level is dropped.
        normaliser: see RPNNormaliser.
        samples_per_image: what RPNNormaliser.FIXED counts.
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
        normaliser: RPNNormaliser,
        samples_per_image: int,
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
        self.normaliser = normaliser
        self.samples_per_image = samples_per_image

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        """Parts by configuration; `input_shape` is the backbone's."""
        rpn, options = cfg.MODEL.RPN, cfg.MODEL.FVIT.RPN
        levels = [name for name in input_shape if name.startswith("p")]
        anchors = AnchorGrid(
            strides=[input_shape[name].stride for name in levels],
            scale=options.ANCHOR_SCALE,
            ratios=cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0],
        )
        if len(rpn.IOU_THRESHOLDS) != 2:
            raise ConfigurationError(f"MODEL.RPN.IOU_THRESHOLDS needs two values; got {rpn.IOU_THRESHOLDS}.")
        return {
            "in_features": levels,
            "head": RPNHead(
                in_channels=input_shape[levels[0]].channels,
                num_anchors=anchors.num_cell_anchors,
                num_convs=len(rpn.CONV_DIMS),
                norm=norm_builder(options.NORM, "MODEL.FVIT.RPN.NORM"),
            ),
            "anchors": anchors,
            "coder": BoxCoder(
                weights=rpn.BBOX_REG_WEIGHTS,
                size_clamp=choose(SizeClamp, cfg.MODEL.FVIT.SIZE_CLAMP, "MODEL.FVIT.SIZE_CLAMP"),
            ),
            "matcher": IoUMatcher(
                negative_iou=rpn.IOU_THRESHOLDS[0],
                positive_iou=rpn.IOU_THRESHOLDS[1],
                low_quality=choose(LowQualityMatch, options.LOW_QUALITY, "MODEL.FVIT.RPN.LOW_QUALITY"),
                low_quality_iou=options.LOW_QUALITY_IOU,
            ),
            "sampler": RandomSampler(num=rpn.BATCH_SIZE_PER_IMAGE, positive_fraction=rpn.POSITIVE_FRACTION),
            "pre_nms": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_iou": rpn.NMS_THRESH,
            "normaliser": choose(RPNNormaliser, options.NORMALISER, "MODEL.FVIT.RPN.NORMALISER"),
            "samples_per_image": rpn.BATCH_SIZE_PER_IMAGE,
        }

    def forward(
        self, images: ImageList, features: dict[str, torch.Tensor], truth: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Features of a batch -> proposals and, in training, losses.

        Args:
            images: for the unpadded sizes.
            truth: gt_boxes of each image; needed in training.

        Returns:
            Instances with proposal_boxes and scores (sigmoid), best first; and loss_rpn_cls, loss_rpn_loc.
        """
        levels = [features[name] for name in self.in_features]
        logits, deltas = self.head(levels)
        anchors = self.anchors([tuple(level.shape[-2:]) for level in levels])
        losses = self.losses(logits, deltas, anchors, truth) if self.training else {}
        return self.proposals(logits, deltas, anchors, images.image_sizes), losses

    def losses(
        self,
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        anchors: list[torch.Tensor],
        truth: list[Instances],
    ) -> dict[str, torch.Tensor]:
        """loss_rpn_cls and loss_rpn_loc of a batch; inputs as the head and the anchor grid give them."""
        all_anchors = torch.cat(anchors)  # (L, 4)
        all_logits, all_deltas = torch.cat(logits, dim=1), torch.cat(deltas, dim=1)  # (B, L), (B, L, 4)
        class_loss, box_loss = all_logits.sum() * 0.0, all_deltas.sum() * 0.0
        num_positive = num_negative = 0
        for image_logits, image_deltas, image_truth in zip(all_logits, all_deltas, truth, strict=True):
            boxes = image_truth.gt_boxes.tensor
            matches = self.matcher(all_anchors, boxes)
            positive, negative = self.sampler(matches)
            chosen = torch.cat([positive, negative])
            labels = (matches[chosen] >= 0).to(image_logits.dtype)
            class_loss = class_loss + F.binary_cross_entropy_with_logits(image_logits[chosen], labels, reduction="sum")
            if len(positive):
                target = self.coder.encode(all_anchors[positive], boxes[matches[positive]])
                box_loss = box_loss + F.l1_loss(image_deltas[positive], target, reduction="sum")
            # The original counts an image without positives (or negatives) as one.
            num_positive += max(len(positive), 1)
            num_negative += max(len(negative), 1)
        if self.normaliser is RPNNormaliser.SAMPLED:
            count = num_positive + num_negative
        else:
            count = self.samples_per_image * len(truth)
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
        """The best boxes of each image, without gradient."""
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
        """The best anchors of each level of one image, as boxes, before suppression.

        Args:
            logits, deltas: per level (h * w * A,) and (h * w * A, 4).
            anchors: per level, as the anchor grid gives them.
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
