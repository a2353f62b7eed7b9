"""Train CAT-Seg over a dense encoder, or evaluate one: Detectron2's command line over `denserc.segmentation`.

    python projects/CATSeg/train_net.py --config-file configs/catseg_vitb16.yaml --num-gpus 4 \
        MODEL.ENCODER.CHECKPOINT output/distill/denserc_vitb16/denserc.safetensors
    python projects/CATSeg/train_net.py --config-file configs/catseg_vitb16.yaml --eval-only \
        MODEL.WEIGHTS output/catseg_vitb16/model_final.pth DATASETS.TEST "('ade20k_150_test_sem_seg',)"

Data sets are below DETECTRON2_DATASETS, by default ./datasets. The vocabulary is each test set's own.
"""

from denserc.evaluation import detection_evaluators
from denserc.launch import launch_script, setup
from denserc.segmentation.engine import run


def main(args) -> dict[str, dict]:
    """One process."""
    cfg = setup(args)
    return run(cfg, evaluator_factory=detection_evaluators(cfg), resume=args.resume, eval_only=args.eval_only)


if __name__ == "__main__":
    launch_script(main)
