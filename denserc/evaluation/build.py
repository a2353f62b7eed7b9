"""Which evaluator a registered data set wants."""

from pathlib import Path

from detectron2.data import MetadataCatalog

from ..structures import ConfigurationError
from .detection import DetectionEvaluator
from .ov_coco import OvCocoEvaluator
from .ov_lvis import OvLvisEvaluator

EVALUATORS = {"ov_coco": OvCocoEvaluator, "ov_lvis": OvLvisEvaluator}


def build_evaluator(dataset_name: str, output_dir: str | Path | None = None, **options) -> DetectionEvaluator:
    """The evaluator that the set's metadata names as `evaluator_type`.

    Args:
        dataset_name: a registered set.
        output_dir: where the evaluator writes; nothing is written when None.
        options: passed on, e.g. max_dets, distributed.

    Raises:
        ConfigurationError: an evaluator type that does not exist.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise ConfigurationError(
            f"{dataset_name} asks for the evaluator {kind!r}; known are {sorted(EVALUATORS)}. Set `evaluator_type` "
            f"where the set is registered."
        )
    return EVALUATORS[kind](dataset_name, output_dir, **options)
