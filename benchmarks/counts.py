"""Multiply-accumulates and gradient sizes of the two trainings, counted from shapes, almost without computing.

Multiply-accumulates are those of matrix products and convolutions as PyTorch counts them, forward and backward. The
recomputation of fused attention and of checkpointing in the backward pass is not included.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from denserc.construction import build_dense_model
from denserc.construction.cost import flop_counter
from denserc.detection.modeling.meta_arch import FViT
from denserc.detection.modeling.rpn import RPNHead, predict_at
from denserc.distillation.build import build_foundation, build_teacher
from denserc.distillation.distiller import foundation_input_size
from denserc.distillation.optim import Trainable, set_trainable
from denserc.structures import choose


@dataclass(frozen=True)
class DistillationCounts:
    """Multiply-accumulates per image of a distillation; `learning` is a number of parameters."""

    student: int  # forward and backward
    student_forward: int
    foundation: int
    crop: int  # the teacher's forward of one region
    learning: int


@dataclass(frozen=True)
class DetectorCounts:
    """Multiply-accumulates per image of a detector training; `learning` is a number of parameters."""

    encoder: int  # the frozen tower in training: only forward
    heads: int  # all that learns: forward and backward
    inference: int  # everything, on one test image with masks for as many boxes as there may be detections
    learning: int


def distillation_counts(cfg: CfgNode) -> DistillationCounts:
    """Count for a configuration of the distillation, with or without weights."""
    cfg = _with_random_weights(cfg)
    model = build_dense_model(cfg)
    set_trainable(model.encoder, choose(Trainable, cfg.DISTILL.TRAINABLE, "DISTILL.TRAINABLE"))
    teacher = build_teacher(cfg, model).to("meta").eval()
    student = model.encoder.to("meta")
    side = cfg.INPUT.SIZE
    forward = _macs(lambda: student(_images(side)))
    both = _macs(lambda: student(_images(side)).sum().backward())
    foundation = build_foundation(cfg)
    with torch.no_grad():
        seen = 0
        if foundation is not None:
            foundation = foundation.to("meta").eval()
            same_tokens = foundation_input_size(side, student.patch_size, foundation.patch_size)
            seen = _macs(lambda: foundation(_images(same_tokens)))
        crop = _macs(lambda: teacher.encode_image(_images(cfg.DISTILL.CROP_SIZE or teacher.native_size)))
    return DistillationCounts(
        student=both, student_forward=forward, foundation=seen, crop=crop, learning=_learning(student)
    )


def detector_counts(cfg: CfgNode, *, classes: int) -> DetectorCounts:
    """Count for a configuration of F-ViT, with full sample sets and as many positives as its heads allow.

    Args:
        classes: Number of classes of the vocabulary.
    """
    cfg = _with_random_weights(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    model = build_model(cfg)
    rpn, sampled = model.proposal_generator.head, 0
    if rpn.local:  # its losses look at the sampled anchors once more, apart from the maps
        sampled = _macs(lambda: _windows(rpn, cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE).backward())
        model.zero_grad()
    with FakeTensorMode(allow_non_fake_inputs=True):  # not the meta device, which knows no autocast
        counts = _detector_counts(cfg, model, classes)
    return replace(counts, heads=counts.heads + sampled)


def _detector_counts(cfg: CfgNode, model: FViT, classes: int) -> DetectorCounts:
    rpn = model.proposal_generator.head
    samples = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    positives = int(samples * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION)
    backbone, blocks = model.backbone, model.backbone.blocks

    def encoded(dense: bool) -> list[torch.Tensor]:
        with torch.no_grad():
            images = torch.empty(1, 3, cfg.INPUT.SIZE, cfg.INPUT.SIZE)
            return backbone.encoder.forward_with_maps(images, blocks, dense=dense)[1]

    def heads(maps: list[torch.Tensor], boxes: int, masks: int) -> torch.Tensor:
        levels = backbone.pyramid.from_projected(backbone.upsampler.projected(maps, backbone.pyramid.projections))
        with torch.no_grad() if model.training and rpn.local else nullcontext():
            proposed = sum(model.proposal_generator.head(levels), [])
        found = [*levels, *proposed]
        features, deltas = model.roi_heads.box_head(_pooled(levels, boxes, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION))
        vectors = torch.empty(classes + 1, features.shape[1])
        found += [nn.functional.linear(features, vectors), deltas]
        if model.roi_heads.mask_head is not None:
            pooled = _pooled(levels, masks, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION)
            found.append(model.roi_heads.mask_head(pooled))
        return sum(one.sum() for one in found)

    model.train()
    encoder = _macs(lambda: encoded(False))
    maps = encoded(False)
    trained = _macs(lambda: heads(maps, samples, positives).backward())
    model.eval()
    tested = _macs(lambda: encoded(True))
    with torch.no_grad():
        tested += _macs(lambda: heads(maps, cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE))
    return DetectorCounts(encoder=encoder, heads=trained, inference=tested, learning=_learning(model))


def learning_parameters(cfg: CfgNode) -> int:
    """Number of parameters that either training changes, and therefore sends as gradients of 4 bytes."""
    if cfg.MODEL.META_ARCHITECTURE == FViT.__name__:
        cfg = _with_random_weights(cfg)
        cfg.MODEL.DEVICE = "cpu"
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
        return _learning(build_model(cfg))
    student = build_dense_model(_with_random_weights(cfg)).encoder
    set_trainable(student, choose(Trainable, cfg.DISTILL.TRAINABLE, "DISTILL.TRAINABLE"))
    return _learning(student)


def _learning(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _with_random_weights(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ENCODER.WEIGHTS = cfg.MODEL.ENCODER.CHECKPOINT = cfg.DISTILL.FOUNDATION.WEIGHTS = ""
    cfg.MODEL.ENCODER.RANDOM_INIT = True
    return cfg


def _macs(call: Callable[[], object]) -> int:
    counter = flop_counter()
    with counter:
        call()
    return counter.get_total_flops() // 2


def _images(side: int) -> torch.Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def _windows(rpn: RPNHead, count: int) -> torch.Tensor:
    """Predictions for the sampled anchors; really computed, because shapes do not determine the anchors."""
    level = torch.zeros(1, rpn.objectness.in_channels, 64, 64, requires_grad=True)
    predicted = predict_at(rpn, [level], torch.zeros(count, dtype=torch.int64), torch.arange(count))
    return sum(one.sum() for one in predicted)


def _pooled(levels: list[torch.Tensor], count: int, side: int) -> torch.Tensor:
    """Output of a pooler, with a gradient that continues into the pyramid."""
    return torch.empty(count, levels[0].shape[1], side, side, requires_grad=True)
