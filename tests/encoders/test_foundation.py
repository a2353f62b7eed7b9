import pytest
import torch
from torch.nn import functional as F

from denserc.encoders import build_foundation_model
from denserc.structures import ConfigurationError, DataError


def test_the_stand_in_tells_regions_of_other_colour_or_texture_apart():
    model = build_foundation_model("colour_texture_p8")
    image = torch.full((1, 3, 64, 64), 0.2)
    image[:, 0, :, 32:] = 0.9  # right half: red
    image[:, :, 32:, ::4] += 0.3  # lower half: vertical stripes
    features = F.normalize(model(image), dim=1).flatten(2)[0]  # (C, 64)
    similarity = (features.T @ features).view(8, 8, 8, 8)
    within = similarity[1, 1, 2, 2]
    assert within > similarity[1, 1, 1, 6] + 0.3  # other colour
    assert within > similarity[1, 1, 6, 1] + 0.5  # other texture


def test_the_stand_in_is_deterministic_without_parameters_and_takes_rectangles():
    model = build_foundation_model("colour_texture_p8")
    assert not list(model.parameters())
    image = torch.rand(2, 3, 32, 64)
    assert model(image).shape[-2:] == (4, 8)
    assert torch.equal(model(image), model(image))
    assert torch.isfinite(model(torch.zeros(1, 3, 16, 16))).all()


@torch.no_grad()
def test_dinov2_gives_timms_normalised_patch_tokens():
    model = build_foundation_model("dinov2_vits14", random_init=True)
    images = torch.randn(1, 3, 56, 28)
    tokens = model.model.forward_features(images)[:, model.model.num_prefix_tokens :]
    torch.testing.assert_close(model(images), tokens.transpose(1, 2).reshape(1, -1, 4, 2), atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())


def test_sizes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"patch size 8 divides; got \(30, 32\)"):
        build_foundation_model("colour_texture_p8")(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ConfigurationError, match="dinov2_vitb14"):
        build_foundation_model("dinov9")
    with pytest.raises(ConfigurationError, match="needs either weights"):
        build_foundation_model("dinov2_vits14")
