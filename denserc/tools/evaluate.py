"""Saved predictions, scored again without a model (`denserc eval`)."""

from collections.abc import Sequence
from pathlib import Path

from ..evaluation import AbsentClasses, LvisProtocol, SegmentationEvaluator, build_evaluator, recall_evaluator
from ..structures import ConfigurationError
from .region_entries import registered_set


def evaluate(
    data_set: str,
    *,
    predictions: str | Path | None = None,
    proposals: str | Path | None = None,
    output_dir: str | Path | None = None,
    lvis_protocols: Sequence[LvisProtocol | str] = (LvisProtocol.STANDARD,),
    sem_seg_protocols: Sequence[AbsentClasses | str] = tuple(AbsentClasses),
) -> dict[str, dict[str, float]]:
    """Score saved detections and saved proposals of a set. The figures are those of the run that wrote the file.

    Args:
        data_set: A registered name or a YAML description.
        predictions: A list in COCO's results format (coco_instances_results.json of an evaluation); of a semantic set,
            the folder of label maps ("predictions" of an evaluation).
        proposals: A file that TEST.PROPOSALS.FILE named; at least one of the two is needed.
        output_dir: Folder for tables and results; None writes nothing.
        lvis_protocols: Protocols of LVIS sets, see LvisProtocol.
        sem_seg_protocols: Protocols of semantic sets, see AbsentClasses.

    Returns:
        {task: {metric: percent}}.

    Raises:
        ConfigurationError: Neither file is given, the set is not registered, or proposals are given for a semantic set.
        DataError: A file cannot be read or is of another data set.
    """
    if predictions is None and proposals is None:
        raise ConfigurationError("Give --predictions, --proposals or both: there is nothing to evaluate.")
    evaluator = build_evaluator(
        registered_set(data_set),
        output_dir,
        lvis_protocols=lvis_protocols,
        sem_seg_protocols=sem_seg_protocols,
        distributed=False,
    )
    if proposals is not None and isinstance(evaluator, SegmentationEvaluator):
        raise ConfigurationError(f"{data_set} is a semantic set, which has no proposals; leave --proposals out.")
    results = {}
    if predictions is not None:
        results.update(evaluator.evaluate_file(predictions))
    if proposals is not None:
        results.update(recall_evaluator(evaluator).evaluate_file(proposals))
    return results
