"""CLIP's ViT and SigLIP behind the same contract: equal to their libraries' own forward, usable densely."""

import open_clip
import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower

from denserc.construction import Construction, DenseEncoder
from denserc.encoders import build_clip, to_open_clip_keys
from denserc.encoders.towers.clip import ClipVitTower
from denserc.encoders.towers.siglip import SiglipTower
from denserc.structures import CLIP_PIXELS, SIGLIP_PIXELS, ConfigurationError


def clip_vit(quick_gelu=True, **changes):
    config = CLIPVisionCfg(**{"layers": 4, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32} | changes)
    return _build_vision_tower(24, config, quick_gelu=quick_gelu)


def siglip():
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    visual = nn.Module()
    visual.trunk = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=64,
        depth=4,
        num_heads=4,
        class_token=False,
        global_pool="map",
        num_classes=0,
    )
    visual.head = nn.Identity()
    return visual


@pytest.fixture(params=["clip", "siglip"])
def tower(request):
    torch.manual_seed(0)
    if request.param == "clip":
        return ClipVitTower(name="clip", visual=clip_vit(), pixels=CLIP_PIXELS).eval()
    return SiglipTower(name="siglip", visual=siglip(), pixels=SIGLIP_PIXELS).eval()


@torch.no_grad()
def test_image_embeddings_equal_the_librarys(tower):
    images = torch.randn(2, 3, 32, 32)
    own = tower.visual(images) if tower.name == "clip" else tower.visual.trunk(images)
    torch.testing.assert_close(tower.encode_image(images), own, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_projection_to_text_space_is_the_head_on_one_token(tower):
    """For SigLIP the head applied to each token separately; for CLIP the class token's projection."""
    tokens = torch.randn(1, 5, tower.width)
    given = tower.to_text_space(tokens)
    stream = tower.embed(torch.zeros(1, 3, 8, 8))
    alone = [tower.pool(stream.with_tokens(tokens[:, i : i + 1])) for i in range(5)]
    torch.testing.assert_close(given, torch.stack(alone, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["denserc", "clipself", "declip", "denserc_qk"])
def test_dense_features_on_rectangles_with_gradients(tower, name):
    encoder = DenseEncoder(tower, Construction.named(name)).train()
    dense = encoder(torch.randn(2, 3, 48, 24))
    assert dense.shape == (2, tower.embed_dim, 6, 3)
    dense.square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in encoder.parameters())
    if encoder.gates is not None:
        assert encoder.gates.projections[0].weight.grad.abs().max() > 0


def test_quick_gelu_is_another_function_and_never_lost_silently():
    torch.manual_seed(0)
    quick, plain = clip_vit(True), clip_vit(False)
    plain.load_state_dict(quick.state_dict())
    images = torch.randn(1, 3, 32, 32)
    assert (quick(images) - plain(images)).abs().max() > 1e-4
    with pytest.raises(ConfigurationError, match="ViT-B-16-quickgelu"):
        build_clip("ViT-B-16", "openai")


def test_towers_of_another_kind_are_refused_with_the_reasons():
    with pytest.raises(ConfigurationError, match="pools by 'avg'"):
        ClipVitTower(name="x", visual=clip_vit(pool_type="avg"), pixels=CLIP_PIXELS)
    with pytest.raises(ConfigurationError, match="no attention-pooling head.*class or register token"):
        from timm.models.vision_transformer import VisionTransformer
        from torch import nn

        visual = nn.Module()
        visual.trunk = VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=1, num_heads=4, num_classes=0)
        SiglipTower(name="x", visual=visual, pixels=SIGLIP_PIXELS)


def test_openai_files_keep_their_text_tower_at_the_root():
    names = ("token_embedding.weight", "text_projection", "visual.proj", "logit_scale")
    given = to_open_clip_keys({name: torch.zeros(2, 2) for name in names})
    assert set(given) == {"text.token_embedding.weight", "text.text_projection", "visual.proj", "logit_scale"}


@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu"])
def test_full_size_clip_is_built_by_name(name):
    clip = build_clip(name, random_init=True)
    assert (clip.image.patch_size, clip.image.depth, clip.image.embed_dim) == (16, 12, 512)
    assert open_clip.get_model_config(name)["quick_gelu"]
