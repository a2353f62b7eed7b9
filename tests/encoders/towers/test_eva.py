"""The EVA-02 tower computes what EVA-CLIP's own code computes (recordings), and what timm computes."""

import pytest
import torch

from denserc.encoders import merge_heads
from denserc.structures import ConfigurationError, DataError


@pytest.mark.parametrize(("size", "tolerance"), [("s", 4e-5), ("l", 3e-5)])
@torch.no_grad()
def test_image_embedding_equals_the_originals(recorded, recorded_tower, size, tolerance):
    given = recorded_tower.encode_image(recorded("inputs", f"images_{size}"))
    torch.testing.assert_close(given, recorded("clipself", f"encode_image_{size}"), atol=tolerance, rtol=0)


@torch.no_grad()
def test_rectangles_equal_the_per_axis_extension(recorded, recorded_tower):
    given = recorded_tower.encode_image(recorded("inputs", "images_rect"))
    torch.testing.assert_close(given, recorded("rect", "rect_encode_image"), atol=4e-5, rtol=0)


@torch.no_grad()
def test_every_value_path_equals_the_originals(recorded, recorded_tower):
    tower = recorded_tower
    for position, index in enumerate((3, 4, 5)):
        entering = recorded("hidden", "hidden_s")[position]
        _, v = tower.values(index, entering)
        given = tower.output_projection(index, tower.inner_norm(index, merge_heads(v)))
        expected = recorded("hidden", "proj_without_attn_s")[position]
        torch.testing.assert_close(given, expected, atol=6e-5, rtol=0)


@torch.no_grad()
def test_blocks_equal_timms_own_forward(miniature):
    tower = miniature.image.eval()
    images = torch.randn(2, 3, tower.native_size, tower.native_size)
    torch.testing.assert_close(tower.encode_image(images), tower.visual(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_fused_qkv_gives_the_same_as_separate(recorded, recorded_tower):
    from tests.conftest import make_recorded_tower

    fused = {}
    state = recorded.weights()
    for key, value in state.items():
        if key.endswith("attn.q_proj.weight"):
            stem = key.removesuffix("q_proj.weight")
            fused[f"{stem}qkv.weight"] = torch.cat(
                [value, state[f"{stem}k_proj.weight"], state[f"{stem}v_proj.weight"]]
            )
        elif not key.endswith(("k_proj.weight", "v_proj.weight")):
            fused[key] = value
    tower = make_recorded_tower(fused, qkv_fused=True)
    images = recorded("inputs", "images_rect")
    torch.testing.assert_close(tower.encode_image(images), recorded_tower.encode_image(images), atol=2e-5, rtol=0)


def test_sizes_that_the_patch_does_not_divide_are_refused(recorded_tower):
    with pytest.raises(DataError, match=r"patch size 8 divides; got \(64, 60\)"):
        recorded_tower.encode_image(torch.zeros(1, 3, 64, 60))
    with pytest.raises(DataError, match=r"\(B, 3, H, W\)"):
        recorded_tower.encode_image(torch.zeros(3, 64, 64))


def test_a_tower_that_is_no_eva02_is_refused_with_the_reasons(recorded):
    from tests.conftest import make_recorded_tower

    weights = {k: v for k, v in recorded.weights().items() if "head" not in k}
    with pytest.raises(ConfigurationError, match="no projection into the image-text space"):
        make_recorded_tower(weights, num_classes=0)
