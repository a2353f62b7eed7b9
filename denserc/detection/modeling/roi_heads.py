"""Second stage: sampling, pooling, box head, classifier, fusion with the frozen encoder, and masks.

Shape letters: R regions of the whole batch, R_b of one image, C classes, E the image-text space; the background is
the last of C + 1 columns. Boxes are (x1, y1, x2, y2) pixels of the network input.
"""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from ...openvocab.registry import registered
from ...openvocab.vocabulary import ClassEmbeddings
from ...structures import choose
from .backbone import DENSE
from .box_coding import BoxCoder
from .classifier import CosineClassifier, FusionExponents, fuse_scores, masked_cross_entropy
from .heads import BoxHead, MaskHead, mask_targets
from .options import LowQualityMatch, Suppression
from .poolers import RegionPooler, align, to_rois
from .postprocess import DetectionRules, select_detections
from .sampling import IoUMatcher, RandomSampler, RegionSample, Sampler, draw_sample, with_masks

INITIAL_TEMPERATURE = 50.0
"""The learned temperature of the classifier before training."""


def pooled_shape(channels: int, resolution: int) -> ShapeSpec:
    """Shape of pooled regions, (C, K, K)."""
    return ShapeSpec(channels=channels, height=resolution, width=resolution)


def roi_head_parts(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    """FViTROIHeads' keyword arguments; `input_shape` is the backbone's."""
    roi, box, options = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.FVIT
    # The coarsest level only proposes.
    levels = [name for name in input_shape if name.startswith("p")][:-1]
    strides = [input_shape[name].stride for name in levels]
    channels, embed_dim = input_shape[levels[0]].channels, input_shape[DENSE].channels
    positive_iou = roi.IOU_THRESHOLDS[0]
    parts = {
        "in_features": levels,
        "dense_stride": input_shape[DENSE].stride,
        "classes": ClassEmbeddings(embed_dim=embed_dim),
        "pooler": RegionPooler(resolution=box.POOLER_RESOLUTION, strides=strides, finest_scale=options.FINEST_SCALE),
        "box_head": registered(ROI_BOX_HEAD_REGISTRY, box.NAME, "MODEL.ROI_BOX_HEAD.NAME", BoxHead)(
            cfg, pooled_shape(channels, box.POOLER_RESOLUTION), embed_dim=embed_dim
        ),
        "classifier": CosineClassifier(
            temperature=INITIAL_TEMPERATURE, test_temperature=options.CLASSIFIER.TEST_TEMPERATURE or None
        ),
        "coder": BoxCoder(weights=box.BBOX_REG_WEIGHTS),
        "matcher": IoUMatcher(
            positive_iou=positive_iou,
            negative_iou=positive_iou,
            low_quality=LowQualityMatch.OVERWRITE if options.ROI.LOW_QUALITY else LowQualityMatch.NONE,
            low_quality_iou=positive_iou,
        ),
        "sampler": RandomSampler(num=roi.BATCH_SIZE_PER_IMAGE, positive_fraction=roi.POSITIVE_FRACTION),
        "encoder_temperature": options.FUSION.TEMPERATURE,
        "exponents": FusionExponents(
            base=options.FUSION.BASE, novel=options.FUSION.NOVEL, unsplit=options.FUSION.UNSPLIT
        ),
        "background_weight": options.CLASSIFIER.BACKGROUND_WEIGHT,
        "rules": DetectionRules(
            score_threshold=roi.SCORE_THRESH_TEST,
            iou=roi.NMS_THRESH_TEST,
            limit=cfg.TEST.DETECTIONS_PER_IMAGE,
            suppression=choose(Suppression, options.NMS, "MODEL.FVIT.NMS"),
            one_label=options.ONE_LABEL_PER_BOX,
        ),
    }
    if cfg.MODEL.MASK_ON:
        mask = cfg.MODEL.ROI_MASK_HEAD
        parts["mask_pooler"] = RegionPooler(
            resolution=mask.POOLER_RESOLUTION, strides=strides, finest_scale=options.FINEST_SCALE
        )
        head = registered(ROI_MASK_HEAD_REGISTRY, mask.NAME, "MODEL.ROI_MASK_HEAD.NAME", MaskHead)
        parts["mask_head"] = head(cfg, pooled_shape(channels, mask.POOLER_RESOLUTION))
    return parts


@ROI_HEADS_REGISTRY.register()
class FViTROIHeads(nn.Module):
    """The second stage.

    Args:
        in_features: Names of the levels that regions are pooled from, finest first.
        dense_stride: Pixels per cell of the frozen dense map.
        classes: The vocabulary in use.
        classifier: Cosine to text embeddings for the trained features.
        encoder_temperature: The same for the frozen dense features.
        exponents: Exponents of the fusion.
        background_weight: Weight of negatives in the classification loss.
        mask_pooler, mask_head: Parts of the mask branch; both or neither.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        dense_stride: float,
        classes: ClassEmbeddings,
        pooler: RegionPooler,
        box_head: BoxHead,
        classifier: CosineClassifier,
        coder: BoxCoder,
        matcher: IoUMatcher,
        sampler: Sampler,
        encoder_temperature: float,
        exponents: FusionExponents,
        background_weight: float,
        rules: DetectionRules,
        mask_pooler: RegionPooler | None = None,
        mask_head: MaskHead | None = None,
    ):
        super().__init__()
        self.in_features = list(in_features)
        self.dense_stride = dense_stride
        self.classes = classes
        self.pooler = pooler
        self.box_head = box_head
        self.classifier = classifier
        self.coder = coder
        self.matcher = matcher
        self.sampler = sampler
        self.encoder_temperature = encoder_temperature
        self.exponents = exponents
        self.background_weight = background_weight
        self.rules = rules
        self.mask_pooler = mask_pooler
        self.mask_head = mask_head

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        """Parts by configuration; `input_shape` is the backbone's."""
        return roi_head_parts(cfg, input_shape)

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        truth: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """In training: (the proposals, losses). Otherwise: (detections in network pixels, {}).

        Args:
            features: Maps of FViTBackbone.
            proposals: Instances with proposal_boxes, per image.
            truth: Instances with gt_boxes, gt_classes and, for masks, gt_masks; needed in training.
        """
        levels = [features[name] for name in self.in_features]
        if self.training:
            samples = [self.sample(p.proposal_boxes.tensor, t) for p, t in zip(proposals, truth, strict=True)]
            losses = self.box_losses(levels, samples, truth)
            if self.mask_head is not None:
                losses["loss_mask"] = self.mask_loss(levels, samples, truth)
            return proposals, losses
        boxes = [p.proposal_boxes.tensor for p in proposals]
        results = self.detect(levels, features[DENSE], boxes, images.image_sizes)
        if self.mask_head is not None:
            masks = self.mask_probabilities(levels, [result.pred_boxes.tensor for result in results])
            for result, mask in zip(results, masks, strict=True):
                result.pred_masks = mask
        return results, {}

    @torch.no_grad()
    def sample(self, proposals: torch.Tensor, truth: Instances) -> RegionSample:
        """The regions of one image to learn from; its ground-truth boxes come first, matched to themselves."""
        return draw_sample(
            proposals, truth, matcher=self.matcher, sampler=self.sampler, background=len(self.classes.novel)
        )

    def box_losses(
        self, levels: list[torch.Tensor], samples: list[RegionSample], truth: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """loss_cls and loss_box_reg; the latter is a sum over the positives divided by the number of all samples."""
        class_features, deltas = self.box_head(self.pooler(levels, [sample.boxes for sample in samples]))
        logits = self.classifier(class_features, self.classes.require())  # (R, C + 1)
        labels = torch.cat([sample.labels for sample in samples])
        class_loss = masked_cross_entropy(
            logits,
            labels,
            novel=self.classes.novel,
            background_weight=self.background_weight,
        )
        targets = [
            self.coder.encode(sample.boxes[: len(sample.matches)], image_truth.gt_boxes.tensor[sample.matches])
            for sample, image_truth in zip(samples, truth, strict=True)
        ]
        positive = labels < len(self.classes.novel)
        box_loss = F.l1_loss(deltas[positive].float(), torch.cat(targets), reduction="sum") / max(len(labels), 1)
        if has_event_storage():
            self._report(logits, labels, positive, len(samples))
        return {"loss_cls": class_loss, "loss_box_reg": box_loss}

    def mask_loss(
        self, levels: list[torch.Tensor], samples: list[RegionSample], truth: list[Instances]
    ) -> torch.Tensor:
        """Mean binary cross-entropy over the pixels of the positives' masks; objects without a mask take no part."""
        samples = [with_masks(sample, one) for sample, one in zip(samples, truth, strict=True)]
        boxes = [sample.boxes for sample in samples]
        if not sum(len(box) for box in boxes):
            # One region at weight 0, so that every process runs the head: synchronised norms would wait for ever.
            boxes = [box.new_tensor([[0.0, 0.0, 32.0, 32.0]]) if i == 0 else box for i, box in enumerate(boxes)]
            return self.mask_head(self.mask_pooler(levels, boxes)).sum() * 0.0
        logits = self.mask_head(self.mask_pooler(levels, boxes))  # (R, 1, M, M)
        targets = [
            mask_targets(image_truth, sample.matches, box, logits.shape[-1])
            for sample, image_truth, box in zip(samples, truth, boxes, strict=True)
            if len(box)
        ]
        return F.binary_cross_entropy_with_logits(logits[:, 0].float(), torch.cat(targets))

    def scores(
        self,
        levels: list[torch.Tensor],
        dense: torch.Tensor,
        boxes: list[torch.Tensor],
        vectors: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of both sides, before softmax and fusion.

        Args:
            dense: (B, E, h, w), L2-normalized.
            boxes: (R_b, 4) of each image.
            vectors: (C + 1, E) unit vectors, background last; None: the vocabulary's.

        Returns:
            The detector's logits and the encoder's, (R, C + 1) each, and the box differences (R, 4).
        """
        vectors = self.classes.require() if vectors is None else vectors
        class_features, deltas = self.box_head(self.pooler(levels, boxes))
        detector = self.classifier(class_features, vectors)
        pooled = align(dense, to_rois(boxes), stride=self.dense_stride, resolution=1).flatten(1)  # (R, E)
        encoder = self.encoder_temperature * F.linear(F.normalize(pooled, dim=1), vectors)
        return detector, encoder, deltas

    def detect(
        self,
        levels: list[torch.Tensor],
        dense: torch.Tensor,
        boxes: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Detections of given regions: pred_boxes, scores, pred_classes of each image, in network pixels."""
        return self.select(self.score_boxes(levels, dense, boxes, image_sizes), image_sizes)

    def score_boxes(
        self,
        levels: list[torch.Tensor],
        dense: torch.Tensor,
        boxes: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Refine given regions: per image boxes (R_b, 4) and fused scores (R_b, C)."""
        detector, encoder, deltas = self.scores(levels, dense, boxes)
        exponents = self.exponents.for_classes(self.classes.novel)
        fused = fuse_scores(detector.softmax(dim=1), encoder.softmax(dim=1), exponents)[:, :-1]
        counts = [len(box) for box in boxes]
        return [
            (self.coder.decode(box, delta, size), score)
            for box, score, delta, size in zip(
                boxes, fused.split(counts), deltas.split(counts), image_sizes, strict=True
            )
        ]

    def select(
        self, scored: list[tuple[torch.Tensor, torch.Tensor]], image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Boxes and scores of each image, as `score_boxes` gives them -> its detections."""
        return [
            select_detections(boxes, scores, size, self.rules)[0]
            for (boxes, scores), size in zip(scored, image_sizes, strict=True)
        ]

    def mask_probabilities(self, levels: list[torch.Tensor], boxes: list[torch.Tensor]) -> list[torch.Tensor]:
        """(R_b, 1, M, M) over each box (R_b, 4) of each image."""
        masks = self.mask_head(self.mask_pooler(levels, boxes)).float().sigmoid()
        return list(masks.split([len(box) for box in boxes]))

    @torch.no_grad()
    def _report(self, logits: torch.Tensor, labels: torch.Tensor, positive: torch.Tensor, num_images: int) -> None:
        storage = get_event_storage()
        storage.put_scalar("roi/num_positive", positive.sum().item() / num_images)
        storage.put_scalar("roi/temperature", self.classifier.temperature.item())
        base = logits[:, :-1].masked_fill(self.classes.novel, float("-inf"))
        if bool(positive.any()):
            hit = base[positive].argmax(dim=1) == labels[positive]
            storage.put_scalar("roi/accuracy_of_positives", hit.float().mean().item())
