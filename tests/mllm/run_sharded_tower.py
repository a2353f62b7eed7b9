"""Two processes share a tower's weights by FSDP: `python run_sharded_tower.py CHECKPOINT STORE`; see the test."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from denserc.mllm import build_vision_tower
from denserc.structures import FingerprintMismatchError
from tests import tiny_models  # noqa: F401  (registers the tiny CLIP)


def run(rank: int, checkpoint: str, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    tower = build_vision_tower(checkpoint, "joined")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = build_vision_tower(checkpoint, "joined")(images).hidden_states[-1]
    other = build_vision_tower(checkpoint, "joined")
    with torch.no_grad():
        next(other.encoder.gates.parameters())[0, 0] += 1
    models = []
    for one in (tower, other):
        models.append(nn.Sequential(one))
        fully_shard(one)
        fully_shard(models[-1])
        models[-1].train()
    for _ in range(2):
        assert torch.equal(models[0](images).hidden_states[-1], expected)
    assert not tower.training
    try:
        models[1](images)
    except FingerprintMismatchError:
        print(f"process {rank}: equal, and the other one refused", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(run, tuple(sys.argv[1:3]), 2)
