"""The parts of Eq. 17 add up to the construction's own feature, and each follows its definition."""

import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import nn
from torch.nn import functional as F

from denserc.analysis.alignment import alignment
from denserc.analysis.interference import decompose, unrelated_patches
from denserc.construction import Construction, DenseEncoder
from denserc.encoders import merge_heads
from denserc.encoders.towers.clip import ClipVitTower
from denserc.encoders.towers.siglip import SiglipTower
from denserc.structures import CLIP_PIXELS, SIGLIP_PIXELS, ConfigurationError
from tests.encoders.towers.test_other_towers import siglip

NAMES = ("denserc", "denserc_none", "denserc_qk", "denserc_qq", "declip", "last_block_values", "clipself")
MIXING = ("denserc_qk", "denserc_qq", "declip")


def encoder_of(tower, name, **overrides):
    encoder = DenseEncoder(tower, Construction.named(name, **overrides)).eval()
    if encoder.gates is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            nn.init.normal_(encoder.gates.projections[0].weight)
    return encoder


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))  # 4 x 6 patches


@pytest.fixture(scope="module")
def everywhere():
    """All 24 patches measured; the unrelated ones are those of the other half of the picture."""
    left = (torch.arange(24) % 6) < 3
    return torch.arange(24), left[:, None] != left[None, :]


def assert_parts_make_the_feature(encoder, image, everywhere):
    parts = decompose(encoder, image, *everywhere, chunk=7)
    whole = parts.whole[None]
    if encoder.construction.final_mlp:
        whole = encoder.tower.mlp(encoder.tower.depth - 1, whole)
    given = encoder.tower.to_text_space(whole).transpose(1, 2).reshape(1, -1, 4, 6)
    expected = encoder(image)
    torch.testing.assert_close(given, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_parts_add_up_to_the_feature(recorded_tower, image, everywhere, name):
    assert_parts_make_the_feature(encoder_of(recorded_tower, name), image, everywhere)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("denserc_qq", {"projection": "last"}),
        ("denserc", {"projection": "last"}),
        ("denserc", {"gate_position": "after_norm"}),
        ("declip", {"final_mlp": True}),
        ("clipself", {"module": "qk_attention"}),
        *((name, {}) for name in ("declip_kk", "declip_vv", "declip_csa", "declip_all")),
    ],
)
@torch.no_grad()
def test_the_parts_add_up_under_every_choice(recorded_tower, image, everywhere, name, changes):
    assert_parts_make_the_feature(encoder_of(recorded_tower, name, **changes), image, everywhere)


@pytest.mark.parametrize("make", [lambda: clip_tower(), lambda: siglip_tower()], ids=["clip", "siglip"])
@torch.no_grad()
def test_towers_without_inner_norm_or_class_token_split_too(make, image, everywhere):
    tower = make()
    encoder = encoder_of(tower, "denserc_qk")
    assert_parts_make_the_feature(encoder, image, everywhere)
    assert decompose(encoder, image, *everywhere).class_token.any() == (tower.name == "clip")


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(MIXING)))
def test_without_attention_nothing_is_off_target(recorded_tower, image, everywhere, name):
    parts = decompose(encoder_of(recorded_tower, name), image, *everywhere)
    assert not parts.off.any() and not parts.class_token.any() and not parts.diagonal.any() and not parts.mass_off.any()


@pytest.mark.parametrize("name", MIXING)
@torch.no_grad()
def test_off_target_part_is_the_feature_of_unrelated_values(recorded_tower, image, everywhere, name):
    """One patch, written out: attention rows, values of U_r only, norm with the whole vector's statistics."""
    tower, encoder = recorded_tower, encoder_of(recorded_tower, name)
    rows, unrelated = everywhere
    parts = decompose(encoder, image, rows, unrelated)
    r, index = 9, tower.depth - 1
    stream = tower.embed(image)
    for block in range(index):
        stream = tower.block(block, stream)[0]
    normed, v = tower.values(index, stream.tokens)
    if name == "denserc_qk":
        q, k = tower.queries_keys(index, normed, stream, rotary=True)
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    else:
        q, _ = tower.queries_keys(index, normed, stream, rotary=False)
        logits = q @ q.transpose(-1, -2)
    weights = logits.softmax(-1)[:, :, 1 + r : 2 + r]  # (1, A, 1, T)
    keep = torch.cat([torch.tensor([False]), unrelated[r]])
    whole, off = merge_heads(weights @ v)[0, 0], merge_heads(weights * keep @ v)[0, 0]
    block = tower.visual.trunk.blocks[index]
    sigma = (whole.var(correction=0) + block.attn.norm.eps).sqrt()
    expected = block.attn.proj.weight @ (block.attn.norm.weight * (off - off.mean()) / sigma)
    torch.testing.assert_close(parts.off[-1, r], expected, atol=1e-5, rtol=1e-4)
    if name == "declip":
        torch.testing.assert_close(parts.mass_off[r], (weights * keep).sum(-1).mean())
        singles = [merge_heads(weights * (torch.arange(25) == j) @ v)[0, 0] for j in keep.nonzero()[:, 0]]
        images = [block.attn.proj.weight @ (block.attn.norm.weight * (s - s.mean()) / sigma) for s in singles]
        expected = sum(x.square().sum() for x in images)
        torch.testing.assert_close(parts.diagonal[r], expected, atol=1e-7, rtol=1e-3)


def test_chunks_of_rows_change_nothing(recorded_tower, image, everywhere):
    encoder = encoder_of(recorded_tower, "denserc_qq")
    one, many = (decompose(encoder, image, *everywhere, chunk=chunk) for chunk in (24, 5))
    for name, value in vars(one).items():
        torch.testing.assert_close(getattr(many, name), value, atol=1e-5, rtol=1e-4)


def test_with_one_unrelated_patch_the_diagonal_is_exact(recorded_tower, image):
    """Eq. 19 drops products between patches; with one patch and one block there is none to drop."""
    unrelated = torch.zeros(1, 24, dtype=torch.bool)
    unrelated[0, 20] = True
    parts = decompose(encoder_of(recorded_tower, "declip"), image, torch.tensor([2]), unrelated)
    assert parts.diagonal > 0
    torch.testing.assert_close(parts.diagonal, parts.off.sum(0).square().sum(-1), rtol=1e-3, atol=1e-9)


def test_a_patch_cannot_be_unrelated_to_itself(recorded_tower, image):
    with pytest.raises(ConfigurationError, match="itself"):
        decompose(encoder_of(recorded_tower, "declip"), image, torch.arange(24), torch.ones(24, 24, dtype=torch.bool))


@pytest.mark.parametrize("name", NAMES)
def test_the_expansion_of_the_error_is_exact(recorded_tower, image, everywhere, name):
    encoder = encoder_of(recorded_tower, name)
    parts = decompose(encoder, image, *everywhere)
    found = alignment(encoder, parts, torch.randn(24, encoder.embed_dim))
    torch.testing.assert_close(found.rest + found.off + found.cross, found.error, atol=1e-4, rtol=1e-4)
    assert found.off.any() == (name in MIXING)
    if name not in MIXING:
        torch.testing.assert_close(found.error_without_off, found.error)


def test_the_error_is_the_distillations_cosine_loss_twice(recorded_tower, image, everywhere):
    encoder = encoder_of(recorded_tower, "denserc_qk")
    targets = torch.randn(24, encoder.embed_dim)
    found = alignment(encoder, decompose(encoder, image, *everywhere), targets)
    with torch.no_grad():
        cosine = F.cosine_similarity(encoder(image)[0].flatten(1).T, targets)
    torch.testing.assert_close(found.error, 2 * (1 - cosine), atol=1e-4, rtol=1e-4)


def test_what_a_final_mlp_hides_is_not_a_number(recorded_tower, image, everywhere):
    encoder = encoder_of(recorded_tower, "declip", final_mlp=True)
    found = alignment(encoder, decompose(encoder, image, *everywhere), torch.randn(24, encoder.embed_dim))
    assert found.off.isnan().all() and found.cross.isnan().all() and found.error.isfinite().all()


def test_what_siglips_head_hides_is_not_a_number(image, everywhere):
    encoder = encoder_of(siglip_tower(), "declip")
    found = alignment(encoder, decompose(encoder, image, *everywhere), torch.randn(24, encoder.embed_dim))
    assert found.off.isnan().all() and found.error.isfinite().all()


def test_both_readings_of_unrelated_patches():
    touched = torch.tensor([[True, True, False, False], [False, True, True, False]])  # two regions of four patches
    rows, owner = torch.tensor([0, 2]), torch.tensor([0, 1])
    outside = unrelated_patches(touched, rows, owner, "outside_region")
    assert outside.tolist() == [[False, False, True, True], [True, False, False, True]]
    others = unrelated_patches(touched, rows, owner, "other_patches")
    assert others.tolist() == [[False, True, True, True], [True, True, False, True]]
    with pytest.raises(ConfigurationError, match="outside_region"):
        unrelated_patches(touched, rows, owner, "far")


def clip_tower():
    config = CLIPVisionCfg(layers=4, width=64, head_width=16, patch_size=8, image_size=32)
    return ClipVitTower(name="clip", visual=_build_vision_tower(24, config), pixels=CLIP_PIXELS).eval()


def siglip_tower():
    return SiglipTower(name="siglip", visual=siglip(), pixels=SIGLIP_PIXELS).eval()
