"""Every family of towers under FSDP2: a block is gathered for its visit, and features and gradients stay the same."""

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist

import tests.tiny_models  # noqa: F401 - registers the tiny models
from denserc.construction import Construction, DenseEncoder, GradientCheckpointing
from denserc.encoders import build_clip
from denserc.engine.sharding import gathered, shard, whole_tensor


@pytest.fixture()
def one_process(tmp_path):
    """A group of this process only: FSDP2 gathers and scatters as in many."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=["DenseRC-Miniature", "DenseRC-Test-CLIP", "DenseRC-Test-Sigmoid"])
def tower(request):
    torch.manual_seed(0)
    return build_clip(request.param, random_init=True).image


@pytest.mark.parametrize("name", ["denserc", "denserc_per_layer", "declip", "clipself"])
@pytest.mark.parametrize("checkpointing", [GradientCheckpointing.NONE, GradientCheckpointing.FULL])
def test_features_and_gradients_are_those_without(one_process, tower, name, checkpointing):
    plain = DenseEncoder(tower, Construction.named(name)).train()
    plain.gradient_checkpointing = checkpointing
    shared = deepcopy(plain)
    shard(shared, parts=shared.tower.blocks, methods=("forward_with_context",))
    images = torch.randn(2, 3, 32, 32)
    features = []
    for encoder in (plain, shared):
        dense = encoder(images)
        features.append(dense.detach())
        dense.square().mean().backward()
    assert torch.equal(*features)
    for (key, one), (other, two) in zip(plain.named_parameters(), shared.named_parameters(), strict=True):
        assert key == other and (one.grad is None) == (two.grad is None), key
        assert one.grad is None or torch.equal(one.grad, whole_tensor(two.grad)), key
    if plain.construction.module.self_correlated:
        results = zip(plain.forward_with_context(images), shared.forward_with_context(images), strict=True)
        assert all(torch.equal(one, two) for one, two in results)


def test_a_block_is_whole_in_its_visit_only(one_process, miniature):
    encoder = DenseEncoder(miniature.image, Construction())
    shard(encoder, parts=encoder.tower.blocks)
    block = encoder.tower.blocks[0]

    def kinds():
        return tuple(type(parameter).__name__ for parameter in block.parameters())

    assert set(kinds()) == {"DTensor"}
    with gathered(encoder):  # also before the first forward
        assert set(kinds()) == {"Parameter"}
        encoder.eval()(torch.zeros(1, 3, 32, 32))
        assert set(kinds()) == {"Parameter"}
    assert set(kinds()) == {"DTensor"}
    seen = []
    encoder.tower.visit(0, lambda x: (seen.extend(kinds()), (x,))[1], torch.ones(1))
    assert set(seen) == {"Parameter"} and set(kinds()) == {"DTensor"}
