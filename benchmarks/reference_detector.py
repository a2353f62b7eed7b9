"""Plain implementation of MMDetection F-ViT over the parts and weights of an FViT.

docs/SPEED.md lists it point by point. Shape letters: B images, R regions, C classes, S candidates.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import nn
from torchvision.ops import nms

from benchmarks.reference import Attention, block, construction_of, gated_values, without_attention
from denserc.construction import DenseEncoder
from denserc.detection.modeling.backbone import DENSE
from denserc.detection.modeling.classifier import fuse_scores
from denserc.detection.modeling.meta_arch import FViT
from denserc.detection.modeling.poolers import align, to_rois
from denserc.detection.modeling.postprocess import original_size, to_original_size

SPLIT = 10_000  # mmcv's split_thr: number of candidates from which it suppresses group by group


def maps_and_dense(
    encoder: DenseEncoder, images: torch.Tensor, blocks: Sequence[int], attention: Attention, *, dense: bool
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """As F-ViT's EvaCLIPViT: one pass, every block but the last whole, the last without attention; maps copied to
    planes. With CLIPSelf's construction the dense map is the last block's; with DenseRC's it is the gated sum."""
    tower, way = encoder.tower, construction_of(encoder)
    stream, last, maps, x = tower.embed(images), tower.depth - 1, [], 0

    def to_map(tokens: torch.Tensor) -> torch.Tensor:
        return stream.to_map(tokens[:, stream.prefix :]).contiguous()

    for index in range(last):
        stream, normed, v = block(tower, index, stream, attention)
        if index in blocks:
            maps.append(to_map(stream.tokens))
        if dense and way == "denserc":
            x = x + gated_values(encoder, index, normed, v)
    final = without_attention(tower, stream)
    if last in blocks:
        maps.append(to_map(final))
    if not dense:
        return None, maps
    x = final if way == "clipself" else x + gated_values(encoder, last, *tower.values(last, stream.tokens))
    return stream.to_map(tower.to_text_space(x)[:, stream.prefix :]), maps


def suppressed(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, *, iou: float, limit: int):
    """mmcv's batched_nms: indices (S',) of what is kept, best first. Groups are set apart in float64, not float32, as
    nothing else here is to be less exact than what it is compared with."""
    moved = boxes.double() + (groups * (boxes.max().double() + 1))[:, None]
    if len(boxes) < SPLIT:
        return nms(moved, scores.double(), iou)[:limit]
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        rows = (groups == group).nonzero().flatten()
        kept[rows[nms(moved[rows], scores[rows].double(), iou)]] = True
    kept = kept.nonzero().flatten()
    return kept[scores[kept].argsort(descending=True, stable=True)][:limit]


class ReferenceDetector(nn.Module):
    """Detections and losses of an FViT, computed as in MMDetection; shares its modules and replaces it in a trainer."""

    def __init__(self, model: FViT, attention: Attention):
        super().__init__()
        self.model = model
        self.attention = attention

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """Same result as `FViT.forward`, without the proposals."""
        images = self.model.preprocess(batched_inputs)
        dense, maps = self.encode(images.tensor)
        features = self.pyramid(maps)
        if not self.model.training:
            with torch.no_grad():
                proposals = self.propose(features, images.image_sizes)
                scored = self.score(features, F.normalize(dense, dim=1), proposals, images.image_sizes)
                results = [self.select(*one, size) for one, size in zip(scored, images.image_sizes, strict=True)]
            return [
                {"instances": to_original_size(result, original_size(one, result))}
                for result, one in zip(results, batched_inputs, strict=True)
            ]
        truth = [one["instances"].to(self.model.device) for one in batched_inputs]
        proposals, losses = self.propose(features, images.image_sizes, truth)
        return {**losses, **self.model.roi_heads(images, features, proposals, truth)[1]}

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The frozen part."""
        backbone = self.model.backbone
        return maps_and_dense(backbone.encoder, images, backbone.blocks, self.attention, dense=not self.model.training)

    def pyramid(self, maps: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Upsampled at full width, then projected."""
        backbone = self.model.backbone
        names = [name for name in backbone.output_shape() if name != DENSE]
        return dict(zip(names, backbone.pyramid(backbone.upsampler(maps)), strict=True))

    def propose(
        self, features: dict[str, torch.Tensor], sizes: list[tuple[int, int]], truth: list[Instances] | None = None
    ):
        """Proposals; with `truth`, losses too, whose gradients go back through the whole maps."""
        rpn = self.model.proposal_generator
        levels = [features[name] for name in rpn.in_features]
        logits, deltas = rpn.head(levels)
        anchors = rpn.anchors([tuple(level.shape[-2:]) for level in levels])
        proposals = []
        with torch.no_grad():
            for i, size in enumerate(sizes):
                boxes, scores, groups = rpn.candidates([x[i] for x in logits], [x[i] for x in deltas], anchors, size)
                sound = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
                boxes, scores, groups = boxes[sound], scores[sound], groups[sound]
                limit = rpn.post_nms[0 if self.model.training else 1]
                kept = suppressed(boxes, scores, groups, iou=rpn.nms_iou, limit=limit)
                proposals.append(Instances(size, proposal_boxes=Boxes(boxes[kept]), scores=scores[kept]))
        return proposals if truth is None else (proposals, rpn.losses(logits, deltas, anchors, truth))

    def score(
        self,
        features: dict[str, torch.Tensor],
        dense: torch.Tensor,
        proposals: list[Instances],
        sizes: list[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Refined boxes (R, 4) and fused scores (R, C) of each image."""
        heads, boxes = self.model.roi_heads, [one.proposal_boxes.tensor for one in proposals]
        head, vectors = heads.box_head, heads.classes.require()
        hidden = head.convs(heads.pooler([features[name] for name in heads.in_features], boxes)).flatten(1)
        for fc in head.fcs:
            hidden = F.relu(fc(hidden))
        detector = heads.classifier(F.relu(head.class_fc(hidden)), vectors)
        deltas = head.deltas(F.relu(head.box_fc(hidden)))
        pooled = align(dense, to_rois(boxes), stride=heads.dense_stride, resolution=1).flatten(1)
        encoder = heads.encoder_temperature * F.linear(F.normalize(pooled, dim=1), vectors)
        exponents = heads.exponents.for_classes(heads.classes.novel)
        fused = fuse_scores(detector.softmax(dim=1), encoder.softmax(dim=1), exponents)[:, :-1]
        counts = [len(one) for one in boxes]
        return [
            (heads.coder.decode(box, delta, size), score)
            for box, delta, score, size in zip(boxes, deltas.split(counts), fused.split(counts), sizes, strict=True)
        ]

    def select(self, boxes: torch.Tensor, scores: torch.Tensor, size: tuple[int, int]) -> Instances:
        """mmdet's multiclass_nms: every class of every box above the threshold."""
        rules = self.model.roi_heads.rules
        rows, classes = (scores > rules.score_threshold).nonzero(as_tuple=True)
        values = scores[rows, classes]
        kept = suppressed(boxes[rows], values, classes, iou=rules.iou, limit=rules.limit) if len(rows) else rows
        result = Instances(size)
        result.pred_boxes, result.scores = Boxes(boxes[rows[kept]]), values[kept]
        result.pred_classes = classes[kept]
        return result
