"""`denserc distill`: train a dense encoder, or evaluate one."""

from .parsing import CommandParser
from .training import parse_training, training_parser

DESCRIPTION = """\
Distill a dense encoder from a CLIP and a foundation model. OUTPUT_DIR receives denserc.safetensors, its checkpoint.
With --eval-only: region classification by MODEL.ENCODER.CHECKPOINT, by the plain CLIP where that is empty, or by
OUTPUT_DIR's encoder with --resume. Data sets are below $DETECTRON2_DATASETS, by default ./datasets."""

EXAMPLES = """
denserc distill --config-file distill/denserc_vitb16 --num-gpus 4 \\
    MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm
torchrun --nproc_per_node=4 -m denserc distill --config-file distill/denserc_vitb16 ...
"""


def parser() -> CommandParser:
    """The options."""
    return training_parser("distill", DESCRIPTION, EXAMPLES)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parse_training(parser(), arguments)

    from ..launch import launch_parsed
    from ..tools.train import distill

    launch_parsed(distill, args)
