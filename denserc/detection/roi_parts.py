"""The parts of the second stage, as a configuration describes them."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from ..structures import choose
from .assignment import IoUMatcher, RandomSampler
from .backbone import DENSE
from .box_coding import BoxCoder
from .box_head import BoxHead
from .classifier import ClassEmbeddings, CosineClassifier
from .fusion import FusionExponents
from .mask_head import MaskHead
from .normalisation import norm_builder
from .options import ClassLossNormaliser, LowQualityMatch, SizeClamp, Suppression
from .pooling import RegionPooler
from .postprocess import DetectionRules


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
        "box_head": BoxHead(
            in_channels=channels,
            resolution=box.POOLER_RESOLUTION,
            num_convs=box.NUM_CONV,
            conv_channels=box.CONV_DIM,
            num_fcs=box.NUM_FC,
            fc_width=options.FC_WIDTH or embed_dim,
            embed_dim=embed_dim,
            norm=norm_builder(box.NORM, "MODEL.ROI_BOX_HEAD.NORM"),
        ),
        "classifier": CosineClassifier(
            temperature=options.CLASSIFIER.TEMPERATURE,
            learned=options.CLASSIFIER.LEARN_TEMPERATURE,
            test_temperature=options.CLASSIFIER.TEST_TEMPERATURE or None,
        ),
        "coder": BoxCoder(
            weights=box.BBOX_REG_WEIGHTS, size_clamp=choose(SizeClamp, options.SIZE_CLAMP, "MODEL.FVIT.SIZE_CLAMP")
        ),
        "matcher": IoUMatcher(
            positive_iou=positive_iou,
            negative_iou=positive_iou,
            low_quality=choose(LowQualityMatch, options.ROI.LOW_QUALITY, "MODEL.FVIT.ROI.LOW_QUALITY"),
            low_quality_iou=options.ROI.LOW_QUALITY_IOU,
        ),
        "sampler": RandomSampler(num=roi.BATCH_SIZE_PER_IMAGE, positive_fraction=roi.POSITIVE_FRACTION),
        "encoder_temperature": options.FUSION.TEMPERATURE,
        "exponents": FusionExponents(
            base=options.FUSION.BASE, novel=options.FUSION.NOVEL, unsplit=options.FUSION.UNSPLIT
        ),
        "background_weight": options.CLASSIFIER.BACKGROUND_WEIGHT,
        "normaliser": choose(
            ClassLossNormaliser, options.CLASSIFIER.LOSS_NORMALISER, "MODEL.FVIT.CLASSIFIER.LOSS_NORMALISER"
        ),
        "rules": DetectionRules(
            score_threshold=roi.SCORE_THRESH_TEST,
            iou=roi.NMS_THRESH_TEST,
            limit=cfg.TEST.DETECTIONS_PER_IMAGE,
            drop_empty=options.DROP_EMPTY,
            suppression=choose(Suppression, options.NMS, "MODEL.FVIT.NMS"),
            one_label=options.ONE_LABEL_PER_BOX,
        ),
    }
    if cfg.MODEL.MASK_ON:
        mask = cfg.MODEL.ROI_MASK_HEAD
        parts["mask_pooler"] = RegionPooler(
            resolution=mask.POOLER_RESOLUTION, strides=strides, finest_scale=options.FINEST_SCALE
        )
        parts["mask_head"] = MaskHead(
            in_channels=channels,
            num_convs=mask.NUM_CONV,
            channels=mask.CONV_DIM,
            norm=norm_builder(mask.NORM, "MODEL.ROI_MASK_HEAD.NORM"),
        )
    return parts
