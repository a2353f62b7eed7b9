"""Distil a dense encoder, or evaluate one: Detectron2's command line over `denserc.distillation`.

    python projects/Distillation/train_net.py --config-file configs/distill/denserc_vitb16.yaml \
        MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm

Data sets lie below DETECTRON2_DATASETS, by default ./datasets. With --eval-only: the region classification of
MODEL.ENCODER.CHECKPOINT, of the plain CLIP where that is empty, or of OUTPUT_DIR's product with --resume.
"""

from denserc.distillation.engine import run
from denserc.evaluation import evaluate_dense_model
from denserc.launch import launch_command, setup


def main(args) -> dict[str, dict[str, float]]:
    """One process."""
    cfg = setup(args)
    evaluator = evaluate_dense_model if cfg.DATASETS.TEST else None
    results = run(cfg, resume=args.resume, eval_only=args.eval_only, evaluator_factory=evaluator)
    for task, metrics in results.items():
        print(f"{task}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return results


if __name__ == "__main__":
    launch_command(main)
