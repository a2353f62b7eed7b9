"""Distil a dense encoder, or evaluate one: Detectron2's command line over `denserc.distillation`.

    python projects/Distillation/train_net.py --config-file configs/distill/denserc_vitb16.yaml \
        MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm

Data sets are below DETECTRON2_DATASETS, by default ./datasets. With --eval-only: the region classification of
MODEL.ENCODER.CHECKPOINT, of the plain CLIP where that is empty, or of OUTPUT_DIR's product with --resume.
"""

from denserc.launch import launch_script
from denserc.tools.train import distill


def main(args) -> dict[str, dict[str, float]]:
    """One process."""
    return distill(args)


if __name__ == "__main__":
    launch_script(main)
