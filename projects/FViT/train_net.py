"""Train F-ViT over a frozen dense encoder, or evaluate one: Detectron2's command line over `denserc.detection`.

    python projects/FViT/train_net.py --config-file configs/ovcoco_vitb16.yaml --num-gpus 8 \
        MODEL.ENCODER.CHECKPOINT output/distill/denserc_vitb16.safetensors
    python projects/FViT/train_net.py --config-file configs/ovcoco_vitb16.yaml --eval-only \
        MODEL.WEIGHTS output/ovcoco_vitb16/model_final.pth

Data sets lie below DETECTRON2_DATASETS, by default ./datasets. Another DATASETS.TEST is zero-shot transfer: the
vocabulary is each test set's own.
"""

import os

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from denserc.config import get_denserc_config
from denserc.data.builtin import register_all
from denserc.detection.engine import run
from denserc.evaluation import build_evaluator


def setup(args) -> CfgNode:
    """The configuration of the command line."""
    register_all(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    cfg = get_denserc_config()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="denserc")
    return cfg


def main(args) -> dict[str, dict]:
    """One process."""
    cfg = setup(args)
    return run(cfg, evaluator_factory=build_evaluator, resume=args.resume, eval_only=args.eval_only)


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    launch(
        main,
        arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )
