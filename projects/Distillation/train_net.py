"""Distil a dense encoder, or evaluate one: Detectron2's command line over `denserc.distillation`.

    python projects/Distillation/train_net.py --config-file configs/distill/denserc_vitb16.yaml \
        MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm

Data sets lie below DETECTRON2_DATASETS, by default ./datasets. With --eval-only: the region classification of
MODEL.ENCODER.CHECKPOINT, of the plain CLIP where that is empty, or of OUTPUT_DIR's product with --resume.
"""

from pathlib import Path

from denserc.distillation.engine import run
from denserc.distillation.sources import register_source
from denserc.evaluation import evaluate_dense_model
from denserc.tools.command_line import data_root, launch_command, setup


def main(args) -> dict[str, dict[str, float]]:
    """One process."""
    # Images without annotations: distillation needs no boxes, so none are left out for the lack of them.
    root = Path(data_root())
    register_source("coco_2017_train_images", f"folder:{root / 'coco' / 'train2017'}")
    register_source("voc_2012_segmentation_train_images", f"voc:{root / 'VOCdevkit' / 'VOC2012'}@")
    register_source("ade20k_training_images", f"ade20k:{root / 'ADEChallengeData2016'}@")
    cfg = setup(args)
    evaluator = evaluate_dense_model if cfg.DATASETS.TEST else None
    results = run(cfg, resume=args.resume, eval_only=args.eval_only, evaluator_factory=evaluator)
    for task, metrics in results.items():
        print(f"{task}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return results


if __name__ == "__main__":
    launch_command(main)
