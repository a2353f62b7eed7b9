"""Which evaluators a registered data set wants."""

from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from ..structures import ConfigurationError
from .detection import DetectionEvaluator
from .ov_coco import OvCocoEvaluator
from .ov_lvis import LvisProtocol, OvLvisEvaluator
from .proposals import ProposalRecallEvaluator

EVALUATORS = {"ov_coco": OvCocoEvaluator, "ov_lvis": OvLvisEvaluator}


def build_evaluator(
    dataset_name: str,
    output_dir: str | Path | None = None,
    *,
    lvis_protocols: Sequence[LvisProtocol | str] = (LvisProtocol.STANDARD,),
    **options,
) -> DetectionEvaluator:
    """The detection evaluator that the set's metadata names as `evaluator_type`.

    Args:
        dataset_name: a registered set.
        output_dir: where the evaluator writes; nothing is written when None.
        lvis_protocols: for "ov_lvis" sets.
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
    if kind == "ov_lvis":
        options["protocols"] = lvis_protocols
    return EVALUATORS[kind](dataset_name, output_dir, **options)


def recall_evaluator(detections: DetectionEvaluator) -> ProposalRecallEvaluator:
    """An evaluator of proposals on the same set, in the same groups of classes and with the same output folder."""
    return ProposalRecallEvaluator(
        ground_truth=detections.ground_truth,
        category_ids=detections.category_ids,
        groups=detections.protocols[0].groups,
        output_dir=detections.output_dir,
        distributed=detections.distributed,
    )


def with_recall(detections: DetectionEvaluator) -> DatasetEvaluators:
    """Both at once: detections and the proposals that they come from."""
    return DatasetEvaluators([detections, recall_evaluator(detections)])
