"""Open-vocabulary detection metrics and region classification."""

from .build import (
    build_evaluator,
    check_region_sets,
    detection_evaluators,
    evaluate_dense_model,
    recall_evaluator,
    with_recall,
)
from .detection.evaluator import DetectionEvaluator
from .detection.open_vocabulary import LvisProtocol, OvCocoEvaluator, OvLvisEvaluator
from .detection.protocol import Protocol
from .detection.recall import ProposalRecallEvaluator
from .regions.classification import evaluate_regions, measure_regions
from .regions.inputs import RegionLimits
from .regions.report import RegionReport
from .scoring.average_precision import Backend, Shape, score_detections
from .segmentation import AbsentClasses, SegmentationEvaluator

__all__ = [
    "AbsentClasses",
    "Backend",
    "DetectionEvaluator",
    "LvisProtocol",
    "OvCocoEvaluator",
    "OvLvisEvaluator",
    "ProposalRecallEvaluator",
    "Protocol",
    "RegionLimits",
    "RegionReport",
    "SegmentationEvaluator",
    "Shape",
    "build_evaluator",
    "check_region_sets",
    "detection_evaluators",
    "evaluate_dense_model",
    "evaluate_regions",
    "measure_regions",
    "recall_evaluator",
    "score_detections",
    "with_recall",
]
