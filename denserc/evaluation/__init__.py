"""Open-vocabulary detection metrics and region classification."""

from .average_precision import Backend, Shape, score_detections
from .build import build_evaluator
from .configured import evaluate_dense_model
from .detection import DetectionEvaluator, Protocol
from .ov_coco import OvCocoEvaluator
from .ov_lvis import OvLvisEvaluator
from .region_classification import evaluate_regions, measure_regions
from .region_inputs import RegionLimits
from .region_report import RegionReport

__all__ = [
    "Backend",
    "DetectionEvaluator",
    "OvCocoEvaluator",
    "OvLvisEvaluator",
    "Protocol",
    "RegionLimits",
    "RegionReport",
    "Shape",
    "build_evaluator",
    "evaluate_dense_model",
    "evaluate_regions",
    "measure_regions",
    "score_detections",
]
