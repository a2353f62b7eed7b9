"""Two gloo processes that train a small model, its weights shared or not: PORT FOLDER (see test_sharding.py)."""

import sys
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch import nn
from torch.nn import functional as F

from denserc.engine.sharding import (
    Sharding,
    gathered,
    load_optimizer,
    local_part,
    place,
    shard,
    sharded_root,
    whole_optimizer,
    whole_tensor,
    whole_weights,
)
from denserc.engine.solver import ExportedWeights, TrainedAverage

WORLD = 2
STEPS = 5


class Net(nn.Module):
    """Parts used by pieces, a scalar, a frozen and an unused layer, running statistics."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 9)) for _ in range(2))
        self.norm = nn.BatchNorm1d(3, track_running_stats=True)
        self.head = nn.Linear(3, 2)
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.frozen(x)
        for block in self.blocks:

            def use(tokens: torch.Tensor, block=block) -> tuple[torch.Tensor]:
                return (tokens + F.linear(block[0](tokens), block[1].weight.chunk(3)[1]),)  # as a tower takes values

            (x,) = block.visit(use, x) if hasattr(block, "visit") else use(x)
        # Each process normalizes by fixed statistics, so that two halves of a batch equal the whole.
        x = F.batch_norm(x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        return self.scale * self.head(x)


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """AdamW as the distillation builds it: groups with a factor, fused."""
    learning = [p for name, p in net.named_parameters() if p.requires_grad and not name.startswith("head")]
    groups = [
        {"params": learning, "weight_decay": 0.1, "rate_factor": 1.0},
        {"params": list(net.head.parameters()), "weight_decay": 0.0, "rate_factor": 2.0},
    ]
    return torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.98), eps=1e-6, fused=True)


def train(sharding: Sharding, rank: int, world: int, *, state: dict | None = None) -> dict:
    """Five steps of two accumulated batches, two of which overflow; everything that is left of them."""
    torch.manual_seed(rank)  # other weights in each process, as Detectron2 seeds them
    net = Net()
    if world == 1:
        torch.manual_seed(0)
        net = Net()
    if sharding.acts:
        shard(net, parts=net.blocks)
    else:
        for tensor in net.state_dict().values() if world > 1 else ():
            dist.broadcast(tensor, src=0)
    updates, scaler, first = optimizer(net), torch.amp.GradScaler("cpu", init_scale=1024.0), 0
    average = TrainedAverage(net, decay=0.5, exported=ExportedWeights.AVERAGE)
    if state is not None:
        net.load_state_dict(place(net, state["model"]))
        load_optimizer(net, updates, state["optimizer"])
        average.load_state_dict(state["average"])
        first = state["steps"]
    root, norms, skipped, half = sharded_root(net), [], 0, None
    for number in range(first, STEPS):
        for group in updates.param_groups:
            group["lr"] = group["rate_factor"] * 0.05 / (1 + number)
        if number == 1:
            scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**127})
        before = scaler.get_scale()
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
        updates.zero_grad()
        for part, batch in enumerate(inputs[rank::world].chunk(2)):
            if root is not None:
                root.set_requires_gradient_sync(part == 1)
            scaler.scale(50 * net(batch).square().mean()).backward()
        given = [p for p in net.parameters() if p.grad is not None]
        for p in given if world > 1 and root is None else ():
            dist.all_reduce(p.grad)
            p.grad /= world
        if number == 3 and (world == 1 or root is None or rank == 1):
            local_part(net.head.weight.grad)[-1] = torch.inf  # in one process's part only
        scaler.unscale_(updates)
        norm = whole_tensor(nn.utils.get_total_norm([p.grad for p in given]))
        nn.utils.clip_grads_with_norm_(given, 0.5, norm)
        norms.append(float(norm))
        scaler.step(updates)
        scaler.update()
        if scaler.get_scale() < before:
            skipped += 1
            scaler.load_state_dict({**scaler.state_dict(), "scale": 1024.0})
        else:
            average.update()
            net.norm.running_mean.add_(0.25)
        if number == 2:
            half = deepcopy(saved(net, updates, average, number + 1))
    with torch.no_grad(), average.exported_weights(), gathered(net):
        # Processes with different numbers of images must not wait for each other.
        outputs = [net(torch.ones(1, 3)) for _ in range(rank + 1)]
    return {
        **saved(net, updates, average, STEPS),
        "half": half,
        "norms": norms,
        "skipped": skipped,
        "evaluated": outputs[-1],
        "kept": sum(local_part(p).numel() for p in net.parameters() if p.requires_grad),
        "moments": sum(local_part(s["exp_avg"]).numel() for s in updates.state.values()),
        "trained": {name: local_part(p).detach().clone() for name, p in net.named_parameters()},
    }


def saved(net: nn.Module, updates: torch.optim.Optimizer, average: TrainedAverage, steps: int) -> dict:
    """The content of a checkpoint."""
    return {
        "model": whole_weights(net),
        "optimizer": whole_optimizer(net, updates),
        "average": average.state_dict(),
        "steps": steps,
    }


def main(rank: int, port: str, folder: str) -> None:
    """One process: without sharding, with it, and second halves from the first ones' states."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    comm.create_local_process_group(WORLD)
    results = {sharding.value: train(sharding, rank, WORLD) for sharding in Sharding}
    alone = torch.load(Path(folder) / "alone.pt", weights_only=True)
    for name, state in (("none", None), ("fsdp", None), ("alone", alone)):
        box = [deepcopy(results[name]["half"]) if state is None else state]
        dist.broadcast_object_list(box, src=0)
        results[f"from_{name}"] = train(Sharding.FSDP, rank, WORLD, state=box[0])
    torch.save(results, Path(folder) / f"rank{rank}.pt")


if __name__ == "__main__":
    mp.start_processes(main, (sys.argv[1], sys.argv[2]), nprocs=WORLD, start_method="fork")
