"""`denserc lab train-clip`: the miniature CLIP, from random weights."""

import argparse
from pathlib import Path

from .parsing import CommandParser

DESCRIPTION = """\
Train the miniature CLIP on captioned crops of freshly drawn scenes, by default with the recipe of the packaged
weights."""

EXAMPLES = """
denserc lab train-clip --out output/miniature_clip --seed 1
"""


def parser() -> CommandParser:
    """The options; those of the recipe are absent from the result unless they are given."""
    parser = CommandParser("lab train-clip", DESCRIPTION, EXAMPLES)
    parser.add_argument("--out", type=Path, default=Path("output/miniature_clip"), help="folder of weights and metrics")
    parser.add_argument("--steps", type=int, default=argparse.SUPPRESS, help="length of the training")
    parser.add_argument("--batch", type=int, default=argparse.SUPPRESS, help="crops per step")
    parser.add_argument("--rate", type=float, default=argparse.SUPPRESS, help="peak learning rate of AdamW")
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="seed of weights and data")
    parser.add_argument("--evaluate-every", type=int, default=300, help="steps between evaluations (default: 300)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = vars(parser().parse_args(arguments))

    import torch

    from ..miniature.train_clip import Recipe, train_clip

    torch.set_num_threads(args.pop("threads"))
    out, evaluate_every = args.pop("out"), args.pop("evaluate_every")
    train_clip(out, Recipe(**args), evaluate_every=evaluate_every)
