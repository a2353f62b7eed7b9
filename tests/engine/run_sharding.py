"""Two gloo processes with a small model and AdamW, its state shared or not: PORT FOLDER (see test_sharding.py)."""

import sys
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from denserc.engine import Sharding, build_sharded, load_whole_state, whole_state

WORLD = 2


def model() -> torch.nn.Module:
    """Ten tensors, one of which gets no gradient; its last group has fewer tensors than there are processes."""
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(n, n + 1) for n in range(3, 8)))


def optimizer(module: torch.nn.Module, sharding: Sharding) -> torch.optim.Optimizer:
    """AdamW as the distillation builds it: three groups, fused."""
    *tensors, last = module.parameters()
    groups = [
        {"params": [p for p in tensors if p.ndim == 2], "weight_decay": 0.1, "rate_factor": 1.0},
        {"params": [p for p in tensors if p.ndim == 1], "weight_decay": 0.0, "rate_factor": 1.0},
        {"params": [last], "weight_decay": 0.1, "rate_factor": 2.0},
    ]
    return build_sharded(torch.optim.AdamW, groups, sharding, lr=0.1, betas=(0.9, 0.98), eps=1e-6, fused=True)


def step(module, updates, scaler, number: int, *, rank: int = 0, world: int = 1) -> float:
    """One step under a schedule, as StepTrainer takes it: unscale, clip, step. Returns the gradient's norm."""
    for group in updates.param_groups:
        group["lr"] = group["rate_factor"] * 0.1 / (1 + number)
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
    updates.zero_grad()
    scaler.scale(100 * module(inputs[rank::world]).square().mean()).backward()
    untouched = next(iter(module.parameters()))
    untouched.grad = None
    given = [p for p in module.parameters() if p.grad is not None]
    for p in given if world > 1 else ():
        dist.all_reduce(p.grad)
        p.grad /= world
    scaler.unscale_(updates)
    norm = torch.nn.utils.clip_grad_norm_(given, 0.5)
    scaler.step(updates)
    scaler.update()
    return float(norm)


def train(sharding: Sharding, rank: int, world: int, *, first: int = 0, state: dict | None = None) -> dict:
    """Five steps, the second of which overflows; what is left of them."""
    module = model()
    updates, scaler = optimizer(module, sharding), torch.amp.GradScaler("cpu", init_scale=1024.0)
    if state is not None:
        module.load_state_dict(state["model"])
        load_whole_state(updates, state["optimizer"])
    skipped, norms, half = 0, [], None
    for number in range(first, 5):
        if number == 1:
            scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**127})
        before = scaler.get_scale()
        norms.append(step(module, updates, scaler, number, rank=rank, world=world))
        skipped += scaler.get_scale() < before
        if number == 1:
            scaler.load_state_dict({**scaler.state_dict(), "scale": 1024.0})
        if number == 2:
            half = deepcopy({"model": module.state_dict(), "optimizer": whole_state(updates)})
    local = getattr(updates, "optim", updates)
    return {
        "model": module.state_dict(),
        "optimizer": whole_state(updates),
        "half": half,
        "norms": norms,
        "skipped": skipped,
        "kept": sum(s["exp_avg"].numel() for s in local.state.values()),
    }


def main(rank: int, port: str, folder: str) -> None:
    """One process: without sharding, with it, and the latter's second half from each one's state after the first."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    comm.create_local_process_group(WORLD)
    results = {sharding.value: train(sharding, rank, WORLD) for sharding in Sharding}
    for name in ("none", "zero1"):
        halves = [deepcopy(results[name]["half"])]  # an optimiser goes on in the tensors that it loads
        dist.broadcast_object_list(halves, src=0)
        results[f"from_{name}"] = train(Sharding.ZERO1, rank, WORLD, first=3, state=halves[0])
    torch.save(results, Path(folder) / f"rank{rank}.pt")


if __name__ == "__main__":
    mp.start_processes(main, (sys.argv[1], sys.argv[2]), nprocs=WORLD, start_method="fork")
