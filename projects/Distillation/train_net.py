"""Distil a dense encoder, or evaluate one: Detectron2's command line over `denserc.distillation`.

    python projects/Distillation/train_net.py --config-file configs/distill/denserc_vitb16.yaml \
        MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm

Data sets lie below DETECTRON2_DATASETS, by default ./datasets. With --eval-only: the region classification of
MODEL.ENCODER.CHECKPOINT, of the plain CLIP where that is empty, or of OUTPUT_DIR's product with --resume.
"""

import os

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from denserc.config import get_denserc_config
from denserc.data.builtin import register_all
from denserc.distillation.engine import run
from denserc.distillation.sources import register_folder
from denserc.evaluation import evaluate_dense_model


def setup(args) -> CfgNode:
    """The configuration of the command line."""
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    register_all(root)
    # All images of train2017: distillation needs no boxes, so none are left out for the lack of them.
    register_folder("coco_2017_train_images", os.path.join(root, "coco", "train2017"))
    cfg = get_denserc_config()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="denserc")
    return cfg


def main(args) -> dict[str, dict[str, float]]:
    """One process."""
    cfg = setup(args)
    evaluator = evaluate_dense_model if cfg.DATASETS.TEST else None
    results = run(cfg, resume=args.resume, eval_only=args.eval_only, evaluator_factory=evaluator)
    for task, metrics in results.items():
        print(f"{task}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return results


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
