"""Test-time flip: detections of an image and its mirror image together.

The regions of both views are united and suppressed; every region is scored and refined in both, and scores, boxes and
mask probabilities are averaged before detections are selected, as MMDetection averages views. (Uniting the views'
detections instead would count an object twice where the views disagree about its box.) So the detections of a mirrored
image are the mirrored detections of the image.

Boxes are (x1, y1, x2, y2) in network pixels.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from detectron2.structures import Boxes, ImageList, Instances

from .backbone import DENSE, FViTBackbone
from .postprocess import grouped_nms
from .roi_heads import FViTROIHeads
from .rpn import FViTRPN


class TwoStageDetector(Protocol):
    """The parts of a detector that the flip uses."""

    backbone: FViTBackbone
    proposal_generator: FViTRPN
    roi_heads: FViTROIHeads

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalize and pad to one size."""


@dataclass(frozen=True)
class FlipView:
    """A batch as it is or mirrored, with its features.

    Args:
        images: The network input.
        features: Maps of FViTBackbone.
        mirrored: Left and right are exchanged within each image, not within its padding.
    """

    images: ImageList
    features: dict[str, torch.Tensor]
    mirrored: bool

    @classmethod
    def of(cls, model: TwoStageDetector, batched_inputs: list[dict], *, mirrored: bool) -> "FlipView":
        """The batch or its mirror image through the backbone."""
        if mirrored:
            batched_inputs = [{**one, "image": one["image"].flip(-1)} for one in batched_inputs]
        images = model.preprocess(batched_inputs)
        return cls(images, model.backbone(images.tensor), mirrored)

    def place(self, boxes: list[torch.Tensor]) -> list[torch.Tensor]:
        """Boxes of the image -> boxes of this view, or the other way round: it is the same."""
        if not self.mirrored:
            return boxes
        return [mirror_boxes(box, size[1]) for box, size in zip(boxes, self.images.image_sizes, strict=True)]


def mirror_boxes(boxes: torch.Tensor, width: float) -> torch.Tensor:
    """(R, 4) in an image of this width -> the same boxes in its mirror image."""
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


@torch.no_grad()
def infer_with_flip(model: TwoStageDetector, batched_inputs: list[dict]) -> tuple[list[Instances], list[Instances]]:
    """Detections and proposals of a batch, in network pixels; the model must be in eval mode."""
    views = [FlipView.of(model, batched_inputs, mirrored=mirrored) for mirrored in (False, True)]
    sizes = views[0].images.image_sizes
    proposals = _propose(model, views)
    regions = [proposal.proposal_boxes.tensor for proposal in proposals]
    heads = model.roi_heads
    levels = [[view.features[name] for name in heads.in_features] for view in views]

    boxes, scores = [], []  # by view, then by image
    for view, own in zip(views, levels, strict=True):
        scored = heads.score_boxes(own, view.features[DENSE], view.place(regions), sizes)
        boxes.append(view.place([box for box, _ in scored]))
        scores.append([score for _, score in scored])
    results = heads.select(list(zip(_mean(boxes), _mean(scores), strict=True)), sizes)

    if heads.mask_head is not None:
        found = [result.pred_boxes.tensor for result in results]
        masks = []
        for view, own in zip(views, levels, strict=True):
            own_masks = heads.mask_probabilities(own, view.place(found))
            masks.append([mask.flip(-1) for mask in own_masks] if view.mirrored else own_masks)
        for result, mask in zip(results, _mean(masks), strict=True):
            result.pred_masks = mask
    return results, proposals


def _propose(model: TwoStageDetector, views: list[FlipView]) -> list[Instances]:
    """The best proposals of all views, suppressed together, best first, in the image's coordinates."""
    boxes, scores = [], []
    for view in views:
        found, _ = model.proposal_generator(view.images, view.features)
        boxes.append(view.place([one.proposal_boxes.tensor for one in found]))
        scores.append([one.scores for one in found])
    rpn, merged = model.proposal_generator, []
    for i, size in enumerate(views[0].images.image_sizes):
        box, score = torch.cat([own[i] for own in boxes]), torch.cat([own[i] for own in scores])
        one_group = torch.zeros(len(box), dtype=torch.int64, device=box.device)
        kept = grouped_nms(box, score, one_group, iou=rpn.nms_iou, limit=rpn.post_nms[1])
        merged.append(Instances(size, proposal_boxes=Boxes(box[kept]), scores=score[kept]))
    return merged


def _mean(of_views: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """Tensors by view and image -> their mean over the views, by image."""
    return [torch.stack(same_image).mean(dim=0) for same_image in zip(*of_views, strict=True)]
