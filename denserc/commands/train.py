"""`denserc train`: train a detector or CAT-Seg over a dense encoder."""

from .parsing import CommandParser
from .training import parse_training, training_parser

DESCRIPTION = """\
Train a detector over a frozen dense encoder, or CAT-Seg. OUTPUT_DIR receives its checkpoints, and the results on
DATASETS.TEST. Data sets are below $DETECTRON2_DATASETS, by default ./datasets."""

EXAMPLES = """
denserc train --config-file ovcoco_vitb16 --num-gpus 8 \\
    MODEL.ENCODER.CHECKPOINT output/distill/denserc_vitb16/denserc.safetensors
denserc train --config-file catseg_vitb16 --num-gpus 4 \\
    MODEL.ENCODER.CHECKPOINT output/distill/denserc_vitb16/denserc.safetensors
torchrun --nproc_per_node=8 -m denserc train --config-file ovcoco_vitb16 ...
"""


def parser() -> CommandParser:
    """The options."""
    return training_parser("train", DESCRIPTION, EXAMPLES)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parse_training(parser(), arguments)

    from ..launch import launch_parsed
    from ..tools.train import train

    launch_parsed(train, args)
