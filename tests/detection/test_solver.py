import torch
from torch import nn

from denserc.detection.solver import ClippedAdamW, build_optimizer


def test_norm_of_all_gradients_together_is_limited():
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 10.0)
    ClippedAdamW(parameters, clip_norm=1.0, lr=0.1).step()
    total = torch.cat([parameter.grad for parameter in parameters]).norm()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_without_a_limit_it_is_adamw(tiny_config):
    cfg = tiny_config()
    cfg.SOLVER.CLIP_NORM, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.BASE_LR = 0.0, 0.1, 0.01
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    ours.bias.requires_grad_(False)
    theirs.bias.requires_grad_(False)
    optimizers = [build_optimizer(cfg, ours), torch.optim.AdamW([theirs.weight], lr=0.01, weight_decay=0.1)]
    assert [len(group["params"]) for group in optimizers[0].param_groups] == [1]
    for module, optimizer in zip((ours, theirs), optimizers, strict=True):
        module(torch.ones(1, 3) * 100).pow(2).sum().backward()
        optimizer.step()
    assert torch.equal(ours.weight, theirs.weight)
