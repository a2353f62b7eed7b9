"""Gloo processes that train together, forked after the imports: WORLD PORT CONFIG [RANK] (see test_processes.py).

Each CONFIG of several, joined by commas, is a training of its own; one whose folder has a state is resumed.

The loss of process RANK, if given, is not a number from the second step on. With TEST.EVAL_PERIOD, process r evaluates
r + 1 images and prints EVALUATED, its rank and a score.
"""

import math
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from denserc.config import read_config
from denserc.distillation import distiller
from denserc.distillation.engine import run
from denserc.structures import DataError


def evaluate(cfg, model) -> dict:
    """The mean feature of a gray image, computed once more in each process than in the one before."""
    for _ in range(comm.get_rank() + 1):
        features = model.encoder(torch.full((1, 3, 64, 64), 0.5))
    print(f"EVALUATED {comm.get_rank()} {float(features.mean()):.9f}", flush=True)
    return {}


def train(rank: int, world: int, port: str, configs: str, broken: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    comm.create_local_process_group(world)
    if rank == broken:
        real, calls = distiller.semantics_loss, []

        def semantics_loss(*arguments):
            calls.append(1)
            return real(*arguments) * (math.nan if len(calls) > 1 else 1)

        distiller.semantics_loss = semantics_loss
    for config in configs.split(","):
        cfg = read_config(config)
        try:
            run(cfg, resume=True, evaluator_factory=evaluate if cfg.TEST.EVAL_PERIOD else None)
        except (FloatingPointError, DataError) as error:
            print(f"STOPPED {rank}: {error}", flush=True)


if __name__ == "__main__":
    broken = int(sys.argv[4]) if len(sys.argv) > 4 else None
    mp.start_processes(
        train, (int(sys.argv[1]), sys.argv[2], sys.argv[3], broken), nprocs=int(sys.argv[1]), start_method="fork"
    )
