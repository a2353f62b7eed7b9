"""Evaluate saved predictions again, without a model:

    python -m denserc.tools.evaluate --data-set ov_coco_2017_val \
        --predictions output/ovcoco_vitb16/inference/ov_coco_2017_val/coco_instances_results.json
    python -m denserc.tools.evaluate --data-set ov_lvis_v1_val --predictions FILE --lvis-protocols standard fixed
    python -m denserc.tools.evaluate --data-set birds_val --register birds.yaml --predictions FILE --output-dir again
    python -m denserc.tools.evaluate --data-set ov_coco_2017_val --proposals output/proposals/val.json.gz

The figures are those of the run that wrote the file. Data sets lie below DETECTRON2_DATASETS, by default ./datasets.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ..evaluation import LvisProtocol, build_evaluator, recall_evaluator
from ..evaluation.detection.report import finite_or_null
from ..structures import ConfigurationError
from .region_entries import registered_names, registered_set


def evaluate(
    data_set: str,
    *,
    predictions: str | Path | None = None,
    proposals: str | Path | None = None,
    output_dir: str | Path | None = None,
    lvis_protocols: Sequence[LvisProtocol | str] = (LvisProtocol.STANDARD,),
) -> dict[str, dict[str, float]]:
    """Score saved detections and saved proposals of a set.

    Args:
        data_set: a registered name or a YAML description.
        predictions: a list in COCO's results format (coco_instances_results.json of an evaluation).
        proposals: a file that TEST.PROPOSALS.FILE named; at least one of the two is needed.
        output_dir: for tables and results; nothing is written when None.
        lvis_protocols: for LVIS sets, see LvisProtocol.

    Returns:
        {task: {metric: percent}}.

    Raises:
        ConfigurationError: neither file is given, or the set is not registered.
        DataError: a file cannot be read or is of another data set.
    """
    if predictions is None and proposals is None:
        raise ConfigurationError("Give --predictions, --proposals or both: there is nothing to evaluate.")
    evaluator = build_evaluator(registered_set(data_set), output_dir, lvis_protocols=lvis_protocols, distributed=False)
    results = {}
    if predictions is not None:
        results.update(evaluator.evaluate_file(predictions))
    if proposals is not None:
        results.update(recall_evaluator(evaluator).evaluate_file(proposals))
    return results


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-set", required=True, help="a registered set, or a YAML description of one's own")
    parser.add_argument("--predictions", help="detections in COCO's results format, plain or .gz")
    parser.add_argument("--proposals", help="proposals in COCO's results format, plain or .gz")
    parser.add_argument("--register", nargs="*", default=[], metavar="YAML", help="descriptions of one's own data sets")
    parser.add_argument("--lvis-protocols", nargs="+", default=["standard"], help="standard, fixed or both (LVIS only)")
    parser.add_argument("--output-dir", help="write tables (CSV) and results (JSON) here")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of tables")
    args = parser.parse_args(arguments)
    # The tables are what the evaluators log.
    setup_logger(name="denserc").setLevel(logging.WARNING if args.json else logging.INFO)
    registered_names(args.register)
    results = evaluate(
        args.data_set,
        predictions=args.predictions,
        proposals=args.proposals,
        output_dir=args.output_dir,
        lvis_protocols=args.lvis_protocols,
    )
    if args.json:
        print(json.dumps(finite_or_null(results), indent=2))


if __name__ == "__main__":
    main()
