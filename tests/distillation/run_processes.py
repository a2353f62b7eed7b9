"""One of several gloo processes that train together: RANK WORLD PORT CONFIG (see test_processes.py)."""

import sys

import torch
import torch.distributed as dist
from detectron2.config import get_cfg
from detectron2.utils import comm

from denserc.construction import add_encoder_config
from denserc.distillation.config import add_distillation_config
from denserc.distillation.engine import run

if __name__ == "__main__":
    rank, world, port, config = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    comm.create_local_process_group(world)
    cfg = get_cfg()
    add_encoder_config(cfg)
    add_distillation_config(cfg)
    cfg.merge_from_file(config)
    run(cfg)
