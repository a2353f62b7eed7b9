"""Open-vocabulary detection metrics and region classification."""

from .average_precision import Backend, Shape, score_detections
from .build import build_evaluator, recall_evaluator, with_recall
from .configured import detection_evaluators, evaluate_dense_model
from .detection import DetectionEvaluator
from .ov_coco import OvCocoEvaluator
from .ov_lvis import LvisProtocol, OvLvisEvaluator
from .proposals import ProposalRecallEvaluator
from .protocol import Protocol
from .region_classification import evaluate_regions, measure_regions
from .region_inputs import RegionLimits
from .region_report import RegionReport

__all__ = [
    "Backend",
    "DetectionEvaluator",
    "LvisProtocol",
    "OvCocoEvaluator",
    "OvLvisEvaluator",
    "ProposalRecallEvaluator",
    "Protocol",
    "RegionLimits",
    "RegionReport",
    "Shape",
    "build_evaluator",
    "detection_evaluators",
    "evaluate_dense_model",
    "evaluate_regions",
    "measure_regions",
    "recall_evaluator",
    "score_detections",
    "with_recall",
]
