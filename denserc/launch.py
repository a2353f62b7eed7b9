"""Command line of the trainings: Detectron2's flags, launch and set-up over DenseRC's configs and data sets.

Several processes come from Detectron2's launch (--num-gpus N) or from torchrun, whose variables are read only here.
Both use NCCL where there are GPUs, and gloo on a CPU.
"""

import multiprocessing
import os
import re
import shlex
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException

from .config import read_config
from .data.config import register_configured
from .model_zoo import find_config_file, get_config_file
from .structures import ConfigurationError, DenseRCError, TrainingStopped, exit_with
from .threads import let_threads_sleep

EPILOG = """
Several processes, by Detectron2's launch or by torchrun (either works with GPUs, and with CPU processes where there is
none; SOLVER.IMS_PER_BATCH is the total over all):

    python train_net.py --config-file cfg.yaml --num-gpus 4
    torchrun --nproc_per_node=4 train_net.py --config-file cfg.yaml
    torchrun --nnodes=2 --nproc_per_node=8 --rdzv-backend=c10d --rdzv-endpoint=host:29500 train_net.py \\
        --config-file cfg.yaml

On a machine with GPUs, CPU processes (MODEL.DEVICE cpu) are started with torchrun.
"""

_FLAG = re.compile(r"--?[A-Za-z]")


@dataclass(frozen=True)
class TorchrunProcess:
    """Rank and world size of one process, from torchrun's environment variables."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @staticmethod
    def from_environment() -> "TorchrunProcess | None":
        """Read the variables; None where torchrun did not start this process."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if not all(name in os.environ for name in names):
            return None
        return TorchrunProcess(*(int(os.environ[name]) for name in names))


def data_root() -> str:
    """Root of the data sets: DETECTRON2_DATASETS, or ./datasets."""
    return os.environ.get("DETECTRON2_DATASETS", "datasets")


def setup(args: Namespace) -> CfgNode:
    """Read the configuration of a command line, register the data sets and set up the log.

    Args:
        args: Detectron2's flags; see `launch_parsed` for `config_file`.
    """
    args.config_file = find_config_file(args.config_file)
    cfg = read_config(args.config_file, args.opts, resolve=get_config_file)
    if not cfg.OUTPUT_DIR.strip():
        raise ConfigurationError("OUTPUT_DIR is empty; expected is a folder, . for the current one.")
    register_configured(cfg, data_root())
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="denserc")
    return cfg


def launch_script(main: Callable) -> NoReturn:
    """Run `launch_command` as a script: a user's error ends with one line and status 2."""
    exit_with(lambda arguments: launch_command(main, arguments), sys.argv[1:])


def launch_command(main: Callable, arguments: list[str] | None = None) -> None:
    """Parse Detectron2's flags and run `main(args)` as `launch_parsed` does.

    Args:
        main: See `launch_parsed`.
        arguments: Command line; None for that of this process.

    Raises:
        ConfigurationError: See `launch_parsed`.
    """
    launch_parsed(main, default_argument_parser(EPILOG).parse_args(arguments))


def launch_parsed(main: Callable, args: Namespace) -> None:
    """Run `main(args)` in the number of processes that the flags or torchrun request.

    Args:
        main: Function of one process; must be importable by name, as for every launcher of processes.
        args: Detectron2's flags. `config_file` is a path or the name of a packaged config, and becomes a path.

    Raises:
        ConfigurationError: There is no such config, or both torchrun and the flags request several processes.
    """
    place = TorchrunProcess.from_environment()
    if place is not None:
        if args.num_gpus > 1 or args.num_machines > 1:
            raise ConfigurationError(
                f"torchrun started {place.world_size} processes and --num-gpus {args.num_gpus} --num-machines "
                f"{args.num_machines} asks for more. Leave these flags out under torchrun."
            )
    require_flags_first(args.opts)
    args.config_file = find_config_file(args.config_file)
    if place is not None:
        run_under_torchrun(main, args, place)
        return
    if args.num_gpus * args.num_machines > 1:
        read_config(args.config_file, args.opts, resolve=get_config_file)  # one error instead of one per process
    let_threads_sleep()  # in the processes that launch starts
    try:
        with _signals_for_children():
            launch(
                _one_process,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(main, args),
            )
    except ProcessExitedException as end:  # it has printed why, or was killed
        sys.exit(end.exit_code if end.exit_code >= 0 else 128 - end.exit_code)


@contextmanager
def _signals_for_children() -> Iterator[None]:
    """Context in which processes that this one starts receive its SIGTERM and SIGINT, and it waits for their end."""

    def forward(number: int, frame: FrameType | None) -> None:
        children = multiprocessing.active_children()
        for child in children:
            os.kill(child.pid, number)
        if not children:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_flags_first(opts: Sequence[str]) -> None:
    """Refuse a flag among KEY VALUE pairs, which argparse takes for a key or a value.

    Raises:
        ConfigurationError: There is one; the message names it.
    """
    late = [word for word in opts if _FLAG.match(word)]
    if late:
        raise ConfigurationError(
            f"{late[0]} comes after KEY VALUE pairs or is misspelt. Flags come first: {late[0]} KEY VALUE ..."
        )


def resume_command(args: Namespace) -> str:
    """The command line of this process with --resume, in the words of a shell."""
    words = sys.argv[1:]
    split = len(words) - len(args.opts or ())
    flags = [word for word in words[:split] if word != "--resume"]
    program = Path(sys.argv[0])
    start = ["denserc"] if program.name in ("denserc", "__main__.py") else ["python", str(program)]
    return shlex.join([*start, *flags, "--resume", *words[split:]])


def _one_process(main: Callable, args: Namespace) -> None:
    """Run one process; a stopped training prints how to continue.

    Raises:
        SystemExit: Several processes: an error of the user, with status 2, or a stopped training.
    """
    several = comm.get_world_size() > 1
    try:
        main(args)
    except TrainingStopped as stop:
        if comm.is_main_process():
            print(f"To continue: {resume_command(args)}", file=sys.stderr, flush=True)
        if not several:
            raise
        comm.synchronize()  # the end of one process ends the others
        sys.exit(stop.status)
    except DenseRCError as error:
        if not several:
            raise
        print(f"error in process {comm.get_rank()}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def run_under_torchrun(main: Callable, args: Namespace, place: TorchrunProcess) -> None:
    """Join the process group as Detectron2's launch does, run `main(args)` and leave the group.

    Raises:
        ConfigurationError: This machine has fewer GPUs than processes.
    """
    if place.world_size == 1:
        _one_process(main, args)
        return
    on_gpu = (
        torch.cuda.is_available()
        and read_config(args.config_file, args.opts, resolve=get_config_file).MODEL.DEVICE != "cpu"
    )
    if on_gpu:
        if torch.cuda.device_count() < place.local_world_size:
            raise ConfigurationError(
                f"torchrun started {place.local_world_size} processes, but this machine has "
                f"{torch.cuda.device_count()} GPUs. Lower --nproc_per_node, or set MODEL.DEVICE cpu."
            )
        torch.cuda.set_device(place.local_rank)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        comm.create_local_process_group(place.local_world_size)
        comm.synchronize()
        _one_process(main, args)
    finally:
        torch.distributed.destroy_process_group()
