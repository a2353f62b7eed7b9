"""Train F-ViT over a frozen dense encoder, or evaluate one: Detectron2's command line over `denserc.detection`.

    python projects/FViT/train_net.py --config-file configs/ovcoco_vitb16.yaml --num-gpus 8 \
        MODEL.ENCODER.CHECKPOINT output/distill/denserc_vitb16/denserc.safetensors
    python projects/FViT/train_net.py --config-file configs/ovcoco_vitb16.yaml --eval-only \
        MODEL.WEIGHTS output/ovcoco_vitb16/model_final.pth
    python projects/FViT/train_net.py --config-file configs/ovcoco_vitb16.yaml --eval-only \
        MODEL.WEIGHTS output/ovcoco_vitb16/model_final.pth DATASETS.TEST "('coco_2017_train_images',)" \
        TEST.PROPOSALS.FILE output/proposals/coco_2017_train.json.gz

The last one writes the RPN's proposals, for DISTILL.REGIONS.PROPOSALS.
Data sets are below DETECTRON2_DATASETS, by default ./datasets. Another DATASETS.TEST is zero-shot transfer: the
vocabulary is each test set's own.
"""

from denserc.detection.engine import run
from denserc.evaluation import detection_evaluators
from denserc.launch import launch_script, setup


def main(args) -> dict[str, dict]:
    """One process."""
    cfg = setup(args)
    return run(cfg, evaluator_factory=detection_evaluators(cfg), resume=args.resume, eval_only=args.eval_only)


if __name__ == "__main__":
    launch_script(main)
