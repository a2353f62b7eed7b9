"""Every recorded output of CLIPSelf and DeCLIP that DenseRC has a counterpart of, within its stated tolerance."""

import pytest
import torch

from denserc.encoders import merge_heads
from tests.construction.parity import FLOAT32, FLOAT64, Ours, difference, normalized_map


@pytest.fixture(scope="module")
def ours(recorded):
    return {dtype: Ours(recorded, dtype) for dtype in (torch.float32, torch.float64)}


@pytest.mark.parametrize("name", FLOAT32)
def test_it_equals_the_original(ours, name):
    assert difference(ours[torch.float32], name) < 1


@pytest.mark.parametrize("name", FLOAT64)
def test_it_equals_the_original_in_float64(ours, name):
    assert difference(ours[torch.float64], name) < 1


@torch.no_grad()
def test_a_table_of_the_wrong_grid_is_not_repeated(ours):
    """On (128, 32) EVA-CLIP takes the square training grid's rotary table, as the counts agree; ours differs."""
    model = ours[torch.float32]
    wrong = model.recorded("rect_more", "quirk_dense")
    assert (normalized_map(model.dense("clipself", "quirk")) - wrong).abs().max() > 1e-2


@torch.no_grad()
def test_every_block_and_its_value_path_equal_the_originals(ours, recorded):
    model, tower = ours[torch.float32], ours[torch.float32].tower
    hidden = torch.cat([recorded("hidden_early", "hidden_s")[:3], recorded("hidden", "hidden_s")[:3]])
    for blocks in range(tower.depth):
        stream = model.stream("s", blocks).tokens[:1]
        torch.testing.assert_close(stream, hidden[blocks], atol=2e-4, rtol=0)
    last = model.stream("s", tower.depth).tokens[:1]
    torch.testing.assert_close(last, recorded("hidden_early", "hidden_s")[3], atol=2e-4, rtol=0)
    for index, expected in enumerate(recorded("hidden_early", "proj_without_attn_s")):
        _, v = tower.values(index, hidden[index])
        given = tower.output_projection(index, tower.inner_norm(index, merge_heads(v)))
        torch.testing.assert_close(given, expected, atol=6e-5, rtol=0)


@torch.no_grad()
def test_queries_without_rotation_equal_declips(ours, recorded):
    """The input of DeCLIP's context term."""
    tower, stream = ours[torch.float32].tower, ours[torch.float32].stream("s", 5)
    q, _ = tower.queries_keys(5, tower.values(5, stream.tokens)[0], stream, rotary=False)
    expected = recorded("declip_more", "extra_qq_q_s")  # (B * A, N, d)
    torch.testing.assert_close(q[:, :, 1:].flatten(0, 1), expected, atol=8e-5, rtol=0)
