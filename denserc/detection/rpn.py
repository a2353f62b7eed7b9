"""Region proposals: losses, and the choice of proposals.

Shape letters: B images, A anchors a cell, L all anchors of an image over the levels (level, y, x, ratio).
"""

from contextlib import nullcontext

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
from .normalisation import norm_builder
from .options import LowQualityMatch, RPNNormaliser, SizeClamp
from .postprocess import grouped_nms
from .rpn_head import RPNHead
from .rpn_samples import predict_at


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
        anchors = self.anchors([tuple(level.shape[-2:]) for level in levels])
        # Proposals need no gradient, and the losses see a few hundred of some 100,000 anchors: where these can be
        # computed by themselves, the head has no backward pass over the whole maps.
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
            logits, deltas: as the head gives them.
            anchors: as the anchor grid gives them.
            truth: gt_boxes of each image.
            levels: the head's input, from which the sampled anchors are predicted once more, with a gradient; the
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
            # The original counts an image without positives (or negatives) as one.
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
