"""Constructions equal CLIPSelf's and DeCLIP's where these exist; the others satisfy their own properties."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from denserc.construction import CONSTRUCTIONS, Construction, DenseEncoder
from denserc.encoders import merge_heads
from denserc.structures import ConfigurationError


def dense(tower, name, images, **overrides):
    return DenseEncoder(tower, Construction.named(name, **overrides)).eval()(images)


@pytest.mark.parametrize(("size", "tolerance"), [("s", 8e-6), ("l", 1e-5)])
@torch.no_grad()
def test_clipself_equals_the_original(recorded, recorded_tower, size, tolerance):
    given = F.normalize(dense(recorded_tower, "clipself", recorded("inputs", f"images_{size}")), dim=1)
    torch.testing.assert_close(given, recorded("clipself", f"encode_dense_{size}"), atol=tolerance, rtol=0)


@torch.no_grad()
def test_clipself_on_rectangles_equals_the_per_axis_extension(recorded, recorded_tower):
    given = F.normalize(dense(recorded_tower, "clipself", recorded("inputs", "images_rect")), dim=1)
    torch.testing.assert_close(given, recorded("rect", "rect_encode_dense"), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "tolerance"), [("s", 1e-4), ("l", 2e-4)])
@torch.no_grad()
def test_declip_equals_the_original(recorded, recorded_tower, size, tolerance):
    given = dense(recorded_tower, "declip", recorded("inputs", f"images_{size}"))
    torch.testing.assert_close(given, recorded("declip", f"dense_qq_{size}"), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("mode", "name"), [("kk", "declip_kk"), ("vv", "declip_vv"), ("csa", "declip_csa"), ("all", "declip_all")]
)
@pytest.mark.parametrize("size", ["s", "l"])
@torch.no_grad()
def test_declips_other_modes_equal_the_original(recorded, recorded_tower, mode, name, size):
    given = dense(recorded_tower, name, recorded("inputs", f"images_{size}"))
    torch.testing.assert_close(given, recorded("declip_modes", f"dense_{mode}_{size}"), atol=7e-5, rtol=0)


@torch.no_grad()
def test_csa_adds_its_two_attentions_up(recorded, recorded_tower):
    """The inner norm hides a factor of two from float32; in float64 it shows."""
    images = recorded("inputs", "images_s").double()
    given = dense(deepcopy(recorded_tower).double(), "declip_csa", images)
    torch.testing.assert_close(given, recorded("declip_modes", "dense_csa_s_f64"), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("qq", "declip"),
        ("kk", "declip_kk"),
        ("vv", "declip_vv"),
        ("csa_img0", "declip_csa"),
        ("all_img0", "declip_all"),
    ],
)
@torch.no_grad()
def test_correlations_of_the_context_equal_declips(recorded, recorded_tower, mode, name):
    images = recorded("inputs", "images_s")[: 1 if "img0" in mode else 2]
    encoder = DenseEncoder(recorded_tower, Construction.named(name)).eval()
    features, context = encoder.forward_with_context(images)
    torch.testing.assert_close(features, encoder(images))
    x = F.normalize(context, dim=-1)
    expected = recorded("declip_modes", f"student_context_{mode}_s").view(len(images), -1, 64, 64)
    torch.testing.assert_close(x @ x.mT, expected, atol=1e-5, rtol=0)


def test_context_features_need_a_self_correlating_attention(recorded_tower):
    with pytest.raises(ConfigurationError, match="module is 'hsg'"):
        DenseEncoder(recorded_tower, Construction()).forward_with_context(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_the_ungated_sum_is_the_sum_of_the_recorded_value_paths(recorded, recorded_tower):
    tower = recorded_tower
    total = recorded("hidden", "proj_without_attn_s").sum(0)[:, 1:]  # (1, N, D) over the last three blocks
    expected = tower.to_text_space(total).transpose(1, 2).reshape(1, -1, 8, 8)
    given = dense(tower, "denserc_none", recorded("inputs", "images_s")[:1])
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_denserc_equals_its_formula_written_out(recorded_tower):
    """X = head(norm(sum_l Proj_l(LN_l(sigmoid(W_H LN(x)) * v)))), patch by patch and head by head."""
    tower, images = recorded_tower, torch.randn(1, 3, 32, 24)
    encoder = DenseEncoder(tower, Construction()).eval()
    weight = torch.randn(tower.num_heads, tower.width)
    encoder.gates.projections[0].weight.copy_(weight)
    stream, total = tower.embed(images), 0
    for index in range(tower.depth):
        normed, v = tower.values(index, stream.tokens)
        if index >= tower.depth - 3:
            heads = []
            for head in range(tower.num_heads):
                gate = torch.sigmoid(normed[0, 1:] @ weight[head])  # (N,)
                heads.append(gate[:, None] * v[0, head, 1:])  # (N, d)
            merged = tower.inner_norm(index, torch.cat(heads, dim=-1)[None])
            total = total + tower.output_projection(index, merged)
        stream = tower.block(index, stream)[0]
    expected = tower.to_text_space(total)[0].T.reshape(1, -1, 4, 3)
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hsg_starts_as_the_ungated_construction(recorded_tower):
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(
        dense(recorded_tower, "denserc", images), dense(recorded_tower, "denserc_none", images), atol=2e-4, rtol=1e-3
    )


@pytest.mark.parametrize("position", ["before_norm", "after_norm"])
@pytest.mark.parametrize("name", ["denserc", "denserc_per_layer"])
def test_every_used_parameter_gets_a_gradient(miniature, name, position):
    encoder = DenseEncoder(miniature.image, Construction.named(name, gate_position=position)).train()
    torch.nn.init.normal_(encoder.gates.projections[0].weight, std=0.1)
    encoder(torch.randn(1, 3, 64, 64)).square().mean().backward()
    last = f"tower.visual.trunk.blocks.{miniature.image.depth - 1}"
    unused = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    expected = {n for n, _ in encoder.named_parameters() if n.startswith((f"{last}.mlp", f"{last}.norm2"))}
    expected |= {f"{last}.attn.{part}" for part in ("q_proj.weight", "q_proj.bias", "k_proj.weight")}
    assert unused == expected


@pytest.mark.parametrize("name", sorted(CONSTRUCTIONS))
@pytest.mark.parametrize("projection", ["own", "last"])
@torch.no_grad()
def test_named_choices_differ_and_run_on_rectangles(recorded_tower, name, projection):
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    given = dense(recorded_tower, name, images, projection=projection)
    assert given.shape == (2, recorded_tower.embed_dim, 4, 6)
    assert torch.isfinite(given).all()
    if name != "clipself":
        assert (given - dense(recorded_tower, "clipself", images)).abs().max() > 1e-2


@torch.no_grad()
def test_maps_are_the_residual_stream_at_no_extra_cost(recorded, recorded_tower):
    tower = recorded_tower
    encoder = DenseEncoder(tower, Construction()).eval()
    images = recorded("inputs", "images_s")[:1]
    alone = encoder(images)
    together, maps = encoder.forward_with_maps(images, (2, 3, 5))
    none, only_maps = encoder.forward_with_maps(images, (2, 3, 5), dense=False)
    assert none is None and torch.equal(alone, together)
    assert all(torch.equal(a, b) for a, b in zip(maps, only_maps, strict=True))
    expected = recorded("hidden", "hidden_s")[1][:, 1:]  # what enters block 4 is what block 3 gives
    torch.testing.assert_close(maps[1].flatten(2).transpose(1, 2), expected, atol=2e-4, rtol=0)
    stream = tower.embed(images)
    for index in range(5):
        stream = tower.block(index, stream)[0]
    _, v = tower.values(5, stream.patches)
    x = stream.patches + tower.output_projection(5, tower.inner_norm(5, merge_heads(v)))
    torch.testing.assert_close(maps[2], stream.to_map(tower.mlp(5, x)), atol=1e-5, rtol=0)


def test_block_indices_out_of_order_or_range_are_refused(miniature):
    encoder = DenseEncoder(miniature.image, Construction())
    for wrong in ((3, 1), (1, 1), (0, 6), (-1,)):
        with pytest.raises(ConfigurationError, match="ascend within 0..5"):
            encoder.forward_with_maps(torch.zeros(1, 3, 64, 64), wrong)


def test_more_blocks_than_the_tower_has_are_refused(miniature):
    with pytest.raises(ConfigurationError, match="7 blocks"):
        DenseEncoder(miniature.image, Construction(num_blocks=7))


@pytest.mark.parametrize(
    ("name", "mixes"), [("denserc", False), ("clipself", False), ("declip", True), ("denserc_qk", True)]
)
@torch.no_grad()
def test_only_attention_mixes_over_space_in_the_last_step(recorded_tower, name, mixes):
    """HSG gives a patch nothing of its neighbors that the blocks before had not given it already."""
    stream = recorded_tower.embed(torch.randn(1, 3, 64, 64))
    changed = stream.with_tokens(stream.tokens.clone())
    changed.tokens[:, 1] += torch.randn(stream.tokens.shape[-1])  # the first patch
    encoder = DenseEncoder(recorded_tower, Construction.named(name)).eval()
    one, two = (encoder._finish(given, given.tokens, None)[0] for given in (stream, changed))
    difference = (one - two).abs().flatten(2)
    assert difference[..., 0].max() > 1e-3
    assert (difference[..., 1:].max() > 1e-6).item() is mixes
