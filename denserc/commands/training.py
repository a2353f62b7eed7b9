"""Flags of the trainings: those of Detectron2's `default_argument_parser`, built without importing Detectron2."""

import argparse
import os
import re
import sys

from .parsing import CommandParser

CONFIG_FILE = "config: a file, or the name of a packaged one (`denserc configs`)"


def training_parser(command: str, description: str, examples: str, *, eval_only: bool = True) -> CommandParser:
    """Parser with Detectron2's flags and defaults.

    Args:
        command, description, examples: See CommandParser.
        eval_only: True to offer --eval-only.
    """
    parser = CommandParser(command, description, examples)
    parser.add_argument("--config-file", default="", metavar="FILE", help=CONFIG_FILE)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    if eval_only:
        parser.add_argument("--eval-only", action="store_true", help="evaluate without training")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs, one process each, per machine (default: 1)")
    parser.add_argument("--num-machines", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    # Detectron2's port: the same for one user, so that a process left over is noticed.
    port = 2**15 + 2**14 + hash(os.getuid() if sys.platform != "win32" else 1) % 2**14
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="address at which the processes meet, for several machines",
    )
    parser.add_argument(
        "opts",
        default=None,
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys and values, after all flags, e.g. SOLVER.IMS_PER_BATCH 16",
    )
    return parser


def parse_training(parser: CommandParser, arguments: list[str] | None) -> argparse.Namespace:
    """Parse the flags; a flag among the KEY VALUE pairs is an error, because argparse would take it for a key."""
    args = parser.parse_args(arguments)
    late = [word for word in args.opts if re.match(r"--?[A-Za-z]", word)]
    if late:
        parser.error(f"{late[0]} comes after KEY VALUE pairs or is misspelt; flags come first")
    return args
