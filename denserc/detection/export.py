"""A detector as one program of torch.export whose text embeddings are an input.

Shape letters: S side of the network's square input, R regions, C classes, E the image-text space; the background is the
last of C + 1 rows or columns.
"""

import torch
from torch import nn
from torchvision.ops import nms

from ..structures import ConfigurationError
from .modeling.backbone import DENSE
from .modeling.classifier import fuse_scores
from .modeling.meta_arch import FViT


class DetectorProgram(nn.Module):
    """Image and text embeddings -> boxes and scores, every size but C fixed, no Python on the way.

    It computes what FViT does up to the scores of the refined boxes. Suppression per class is left to the caller, as
    every runtime has its own (`denserc.detection.modeling.postprocess.select_detections` is ours); so are masks.

    Args:
        model: Detector in eval mode.
    """

    def __init__(self, model: FViT):
        super().__init__()
        self.backbone = model.backbone
        self.proposal_generator = model.proposal_generator
        self.roi_heads = model.roi_heads
        self.register_buffer("pixel_mean", model.pixel_mean.clone())
        self.register_buffer("pixel_std", model.pixel_std.clone())

    def forward(
        self, image: torch.Tensor, size: torch.Tensor, vectors: torch.Tensor, exponents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One image.

        Args:
            image: (3, S, S) float RGB in 0..255; the picture in the upper left corner, anything elsewhere.
            size: (2,) int64, the picture's (h, w).
            vectors: (C + 1, E) unit vectors.
            exponents: (C + 1,) how much the frozen encoder counts (`FusionExponents.for_classes`).

        Returns:
            Boxes (R, 4) in the pixels of `image`, clipped to the picture, and fused scores (R, C), 0 in rows without a
            proposal; R is the number of proposals that the detector keeps at most.
        """
        y, x = (torch.arange(side, device=image.device) for side in image.shape[-2:])
        inside = (y[:, None] < size[0]) & (x < size[1])
        pixels = torch.where(inside, (image - self.pixel_mean) / self.pixel_std, image.new_zeros(()))
        features = self.backbone(pixels[None])
        regions, valid = self._regions(features, size)
        heads = self.roi_heads
        levels = [features[name] for name in heads.in_features]
        detector, encoder, deltas = heads.scores(levels, features[DENSE], [regions], vectors)
        fused = fuse_scores(detector.softmax(dim=1), encoder.softmax(dim=1), exponents)[:, :-1]
        return _clip(heads.coder.decode(regions, deltas), size), fused * valid[:, None]

    def _regions(self, features: dict[str, torch.Tensor], size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As FViTRPN.proposals, but always R: (R, 4) boxes and (R,) bool, False where there is none."""
        rpn = self.proposal_generator
        levels = [features[name] for name in rpn.in_features]
        logits, deltas = rpn.head(levels)
        anchors = rpn.anchors([tuple(level.shape[-2:]) for level in levels])
        boxes, scores, groups = rpn.candidates([one[0] for one in logits], [one[0] for one in deltas], anchors, None)
        boxes = _clip(boxes, size)
        sound = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
        # What is not sound goes behind all that is, where it suppresses nothing, and is left out after suppression.
        order = torch.where(sound, scores, scores - 2.0).argsort(descending=True, stable=True)
        boxes, sound, groups = boxes[order], sound[order], groups[order]
        span = boxes.max().double() + 1.0
        ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=torch.float64)
        kept = nms(boxes.double() + (groups.double() * span)[:, None], ranks, rpn.nms_iou)
        limit = rpn.post_nms[1]
        rows = torch.cat([kept, kept.new_full((limit,), -1)])[:limit]
        chosen = rows.clamp(min=0)
        return boxes[chosen], (rows >= 0) & sound[chosen]


def _clip(boxes: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """(R, 4) boxes moved inside an image whose size (h, w) is a tensor."""
    limit = size.flip(0).repeat(2).to(boxes.dtype)  # (w, h, w, h)
    return torch.minimum(boxes.clamp(min=0.0), limit)


@torch.no_grad()
def export_detector(model: FViT, side: int) -> torch.export.ExportedProgram:
    """The program for inputs of one side.

    Args:
        model: Detector in eval mode, on the device that the program will run on.
        side: S, a multiple of the patch size. The published figures are at INPUT.SIZE.

    Raises:
        ConfigurationError: The patch size does not divide the side.
    """
    patch = model.backbone.encoder.patch_size
    if side <= 0 or side % patch:
        raise ConfigurationError(f"The side of the input must be a multiple of the patch size {patch}; got {side}.")
    device, embed_dim = model.device, model.backbone.encoder.embed_dim
    example = (
        torch.zeros(3, side, side, device=device),
        torch.tensor([side, side], device=device),
        nn.functional.normalize(torch.ones(4, embed_dim, device=device), dim=1),
        torch.full((4,), 0.5, device=device),
    )
    # Two classes and the background at least: with one class some shapes would be taken for constants.
    classes = torch.export.Dim("classes_and_background", min=3)
    program = DetectorProgram(model).eval()
    return torch.export.export(program, example, dynamic_shapes=(None, None, {0: classes}, {0: classes}), strict=False)
