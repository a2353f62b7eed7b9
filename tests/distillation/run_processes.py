"""Trains five steps with one or two gloo processes: python run_processes.py WORLD PORT IMAGES OUTPUT (see test_processes.py)."""

import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import get_cfg
from detectron2.utils import comm

from denserc.construction import add_encoder_config
from denserc.distillation.config import add_distillation_config
from denserc.distillation.engine import run


def work(rank: int, world: int, port: str, images: str, output: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        comm.create_local_process_group(world)
    cfg = get_cfg()
    add_encoder_config(cfg)
    add_distillation_config(cfg)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.ENCODER.NAME", "DenseRC-Miniature", "MODEL.ENCODER.RANDOM_INIT", True]
        + ["DISTILL.FOLDERS", (images,), "DISTILL.STUDENT_SIZE", 64, "DISTILL.CROP_SIZE", 32, "SEED", 3]
        + ["DISTILL.FOUNDATION.NAME", "colour_texture_p8", "DISTILL.REGIONS.MAX_SPLIT", 3]
        + ["SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 1e-3, "SOLVER.MAX_ITER", 5, "SOLVER.WARMUP_ITERS", 2]
        + ["DATALOADER.NUM_WORKERS", 0, "DISTILL.PROGRESS_BAR", False, "OUTPUT_DIR", output]
    )
    run(cfg)


if __name__ == "__main__":
    size = int(sys.argv[1])
    if size == 1:
        work(0, 1, *sys.argv[2:])
    else:
        mp.spawn(work, args=(size, *sys.argv[2:]), nprocs=size)
