"""The command line of both projects: Detectron2's flags, launch and set-up over DenseRC's configs and data sets."""

import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import get_denserc_config
from ..data.builtin import register_all


def data_root() -> str:
    """Where the data sets lie: DETECTRON2_DATASETS, or ./datasets."""
    return os.environ.get("DETECTRON2_DATASETS", "datasets")


def setup(args) -> CfgNode:
    """The configuration of a command line; the built-in data sets are registered, the log is set up."""
    register_all(data_root())
    cfg = get_denserc_config()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="denserc")
    return cfg


def launch_command(main: Callable, arguments: list[str] | None = None) -> None:
    """Run `main(args)` in as many processes as the flags say.

    Args:
        main: one process; must be importable by name, as every launcher of processes needs it.
        arguments: of the command line; those of this process if None.
    """
    args = default_argument_parser().parse_args(arguments)
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
