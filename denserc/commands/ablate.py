"""`denserc lab ablate`: the paper's ablations, measured."""

import argparse
from pathlib import Path

from .choices import ABLATION_TABLES
from .parsing import CommandParser
from .training import CONFIG_FILE

DESCRIPTION = """\
Measure the paper's ablations. Every row is distilled once per seed from the same base config, by default that of the
miniature world, whose data are written first where they are missing. The measure is region classification: top-1 mean
accuracy of boxes, thing masks and stuff masks. The table shows mean and deviation over the seeds beside the paper's
figures, then which pairs of rows are ordered otherwise than there. Finished runs are kept and shared between tables."""

EXAMPLES = """
denserc lab ablate --table 11 --seeds 0 1 2
denserc lab ablate --config-file distill/denserc_vitb16 --table construction \\
    MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("lab ablate", DESCRIPTION, EXAMPLES)
    parser.add_argument("--table", nargs="+", choices=ABLATION_TABLES, required=True, help="tables to measure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--config-file", default="", metavar="FILE", help=f"base {CONFIG_FILE}")
    parser.add_argument(
        "--output", type=Path, default=Path("output/ablations"), help="folder (default: output/ablations)"
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values for every row"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from ..config import read_config
    from ..data.datasets.builtin import register_all
    from ..launch import data_root
    from ..miniature.demo.run import quiet_log
    from ..miniature.demo.stages import Places, prepare_world
    from ..model_zoo import configs_folder, find_config_file
    from ..tools.ablate import ablate

    config = find_config_file(args.config_file or "miniature/distill_denserc")
    quiet_log(args.output)
    base = read_config(config, args.opts)
    register_all(data_root())
    if not args.config_file:
        prepare_world(Places(args.output, configs_folder()))
    ablate(base, args.table, args.seeds, args.output)
