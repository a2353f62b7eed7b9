"""`denserc eval`: evaluate a detector, or score predictions that an evaluation saved."""

import json

from .parsing import CommandParser
from .training import parse_training, training_parser

DESCRIPTION = """\
Evaluate a detector on DATASETS.TEST (with --config-file), or score saved predictions again without a model (with
--predictions or --proposals, and --data-set). Another DATASETS.TEST is zero-shot transfer: the vocabulary is that of
each test set. Data sets are below $DETECTRON2_DATASETS, by default ./datasets. Encoders: `denserc distill --eval-only`.
Answers of a LLaVA: `denserc eval llava`.
"""

EXAMPLES = """
denserc eval --config-file ovcoco_vitb16 --num-gpus 8 MODEL.WEIGHTS output/ovcoco_vitb16/model_final.pth
denserc eval --data-set ov_coco_2017_val \\
    --predictions output/ovcoco_vitb16/inference/ov_coco_2017_val/coco_instances_results.json
denserc eval --data-set ov_lvis_v1_val --predictions FILE --lvis-protocols standard fixed
denserc eval --data-set birds_val --register birds.yaml --predictions FILE --output-dir again
denserc eval --data-set ov_coco_2017_val --proposals output/proposals/val.json.gz
"""


def parser() -> CommandParser:
    """The options."""
    parser = training_parser("eval", DESCRIPTION, EXAMPLES, eval_only=False)
    saved = parser.add_argument_group("scoring saved predictions")
    saved.add_argument("--data-set", help="a registered set, or a YAML description of your own")
    saved.add_argument("--predictions", metavar="FILE", help="detections (COCO results), or a folder of label maps")
    saved.add_argument("--proposals", metavar="FILE", help="proposals in COCO's results format, plain or .gz")
    saved.add_argument("--register", nargs="*", default=[], metavar="YAML", help="descriptions of your own data sets")
    saved.add_argument("--lvis-protocols", nargs="+", default=["standard"], help="standard, fixed or both (LVIS only)")
    saved.add_argument("--sem-seg-protocols", nargs="+", default=["present", "present_or_predicted"],
                       help="classes without ground truth in mIoU: present, present_or_predicted or both")  # fmt: skip
    saved.add_argument("--output-dir", metavar="DIR", help="folder for tables (CSV) and results (JSON)")
    saved.add_argument("--json", action="store_true", help="print the results as JSON instead of tables")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    command = parser()
    args = parse_training(command, arguments)
    saved = bool(args.predictions or args.proposals)
    if saved == bool(args.config_file):
        command.error("give either --config-file, or --data-set with --predictions or --proposals")
    if saved and not args.data_set:
        command.error("--predictions and --proposals need --data-set: the set that they are of")
    if saved and args.opts:
        command.error(f"KEY VALUE pairs belong to --config-file; got {' '.join(args.opts)}")
    if not saved:
        from ..launch import launch_parsed
        from ..tools.train import train

        args.eval_only = True
        launch_parsed(train, args)
        return

    from detectron2.utils.logger import setup_logger

    from ..data import register_from_yaml
    from ..structures.files import finite_or_null
    from ..tools.evaluate import evaluate

    if not args.json:  # the tables are what the evaluators log; warnings beside JSON go to stderr
        setup_logger(name="denserc")
    for description in args.register:
        register_from_yaml(description)
    results = evaluate(
        args.data_set,
        predictions=args.predictions,
        proposals=args.proposals,
        output_dir=args.output_dir,
        lvis_protocols=args.lvis_protocols,
        sem_seg_protocols=args.sem_seg_protocols,
    )
    if args.json:
        print(json.dumps(finite_or_null(results), indent=2))
