"""`denserc lab ablate`: the paper's ablations, measured."""

import argparse
from pathlib import Path

from .choices import ABLATION_TABLES, DOWNSTREAM_MEASURES
from .parsing import CommandParser
from .training import CONFIG_FILE

DESCRIPTION = """\
Measure the paper's ablations. Every row is distilled once per seed from the same base config, by default that of the
miniature world, whose data are written first where they are missing. Every row has the top-1 mean accuracy of region
classification: boxes, thing masks and stuff masks. --downstream adds measures: a segmenter or a detector is trained
over the row's encoder, or its dense features are evaluated without training. Their data sets are those of DATASETS.TEST
in their configs. The table shows mean and deviation over the seeds beside the paper's figures, then which pairs of rows
are ordered differently. Finished runs are kept and shared between tables."""

EXAMPLES = """
denserc lab ablate --table 11 --seeds 0 1 2
denserc lab ablate --table 13 construction --downstream segmentation dense_segmentation detection
denserc lab ablate --config-file distill/denserc_vitb16 --table 13 \\
    --downstream segmentation --segmentation-config my_catseg.yaml \\
    MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("lab ablate", DESCRIPTION, EXAMPLES)
    parser.add_argument("--table", nargs="+", choices=ABLATION_TABLES, required=True, help="tables to measure")
    parser.add_argument(
        "--downstream",
        nargs="+",
        choices=DOWNSTREAM_MEASURES,
        default=[],
        help="further measures (default: region classification only)",
    )
    for name in DOWNSTREAM_MEASURES:
        parser.add_argument(
            f"--{name.replace('_', '-')}-config",
            default="",
            metavar="FILE",
            help=f"config of {name} (default: the miniature's, for encoders of the miniature)",
        )
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
    command = parser()
    args = command.parse_args(arguments)
    given = {name: getattr(args, f"{name}_config") for name in DOWNSTREAM_MEASURES}
    unused = [name for name, file in given.items() if file and name not in args.downstream]
    if unused:
        command.error(f"a config is given for {unused[0]}, which --downstream does not name")

    from ..config import read_config
    from ..data.config import register_configured
    from ..launch import data_root
    from ..miniature.demo.run import quiet_log
    from ..miniature.demo.stages import Places, prepare_world
    from ..model_zoo import configs_folder, find_config_file
    from ..tools.ablate import ablate
    from ..tools.downstream import read_configs

    base = read_config(find_config_file(args.config_file or "miniature/distill_denserc"), args.opts)
    downstream = read_configs({name: given[name] for name in args.downstream}, encoder=base.MODEL.ENCODER.NAME)
    quiet_log(args.output)
    for cfg in (base, *downstream.values()):
        register_configured(cfg, data_root())
    if not args.config_file:
        prepare_world(Places(args.output, configs_folder()))
    ablate(base, args.table, args.seeds, args.output, downstream)
