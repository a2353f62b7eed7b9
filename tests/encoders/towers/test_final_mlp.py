"""The last block of the global embedding: Table 13's switch, and only the class token's row where that is enough."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from denserc.encoders.towers.clip import ClipVitTower
from denserc.encoders.towers.siglip import SiglipTower
from denserc.structures import CLIP_PIXELS, SIGLIP_PIXELS
from tests.encoders.towers.test_other_towers import clip_vit, siglip


@pytest.fixture(params=["eva", "clip", "siglip"])
def any_tower(request, recorded_tower):
    torch.manual_seed(0)
    if request.param == "clip":
        return ClipVitTower(name="clip", visual=clip_vit(), pixels=CLIP_PIXELS).eval()
    if request.param == "siglip":
        return SiglipTower(name="siglip", visual=siglip(), pixels=SIGLIP_PIXELS).eval()
    return deepcopy(recorded_tower)


def last_mlp_output(tower) -> nn.Linear:
    """The linear map whose output the last block's MLP adds to the stream."""
    if tower.name == "clip":
        return tower.visual.transformer.resblocks[-1].mlp.c_proj
    return tower.visual.trunk.blocks[-1].mlp.fc2


def test_no_final_mlp_equals_the_library_with_a_zero_last_mlp(any_tower):
    size = any_tower.native_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, given = any_tower.encode_image(images), any_tower.encode_image(images, final_mlp=False)
        nn.init.zeros_(last_mlp_output(any_tower).weight)
        nn.init.zeros_(last_mlp_output(any_tower).bias)
        library = any_tower.visual(images) if any_tower.name == "clip" else any_tower.visual.trunk(images)
    torch.testing.assert_close(given, library, atol=1e-5, rtol=1e-5)
    assert (whole - given).abs().max() > 1e-3


def test_last_block_for_only_the_class_token_changes_nothing(any_tower):
    images = torch.randn(2, 3, 3 * any_tower.patch_size, 4 * any_tower.patch_size)
    seen = []
    any_tower.mlp = lambda index, tokens, mlp=any_tower.mlp: seen.append(tokens.shape[1]) or mlp(index, tokens)
    with torch.no_grad():
        given = any_tower.encode_image(images)
        stream = any_tower.embed(images)
        for index in range(any_tower.depth):
            stream, _, _ = any_tower.block(index, stream)
        torch.testing.assert_close(given, any_tower.pool(stream), atol=2e-6, rtol=1e-6)
    assert seen[any_tower.depth - 1] == (stream.prefix or 12)
