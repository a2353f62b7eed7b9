import numpy as np
import pytest
import torch

from denserc.structures import DataError
from denserc.visualization import pca_picture, pca_rgb, similarity_map, similarity_picture
from denserc.visualization.features import cell_of_point, pca_basis


@pytest.fixture
def features():
    return torch.randn(16, 6, 9, generator=torch.Generator().manual_seed(0))


def test_similarity_is_the_cosine(features):
    similarity = similarity_map(features, (2, 7))
    assert similarity.shape == (6, 9) and similarity[2, 7] == pytest.approx(1.0)
    expected = torch.nn.functional.cosine_similarity(features[:, 4, 1], features[:, 2, 7], dim=0)
    assert similarity[4, 1] == pytest.approx(float(expected), abs=1e-6)
    torch.testing.assert_close(similarity, similarity_map(5 * features, (2, 7)))


def test_a_point_finds_its_cell_on_grids_that_are_not_square():
    assert cell_of_point((0, 0), (60, 90), (6, 9)) == (0, 0)
    assert cell_of_point((25, 71), (60, 90), (6, 9)) == (2, 7)
    assert cell_of_point((60, 90), (60, 90), (6, 9)) == (5, 8)


def test_principal_components_part_two_regions(features):
    two = torch.zeros(8, 6, 6)
    two[0, :, :3] = 1.0
    two[1, :, 3:] = 1.0
    two += 0.01 * torch.randn(two.shape, generator=torch.Generator().manual_seed(0))
    colors = pca_rgb(two).astype(int)
    assert colors.shape == (6, 6, 3)
    left, right = colors[:, :3, 0], colors[:, 3:, 0]
    assert left.min() - right.max() > 150 or right.min() - left.max() > 150


def test_shared_basis_maps_equal_features_to_equal_directions(features):
    mean, directions = pca_basis(torch.stack([features, features.flip(2)]))
    torch.testing.assert_close(directions.T @ directions, torch.eye(3), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(
        pca_rgb(features, (mean, directions)), pca_rgb(features.flip(2), (mean, directions))[:, ::-1]
    )


def test_pictures_have_a_panel_an_encoder(features):
    picture = np.full((60, 90, 3), 128, dtype=np.uint8)
    encoders = {"before": features, "after": torch.nn.functional.interpolate(features[None], (12, 18))[0]}
    similarity = similarity_picture(picture, encoders, (25, 71))
    components = pca_picture(picture, encoders)
    for sheet in (similarity, components):
        assert sheet.dtype == np.uint8 and sheet.shape[0] >= 360 and sheet.shape[1] > 3 * 540
    yellow = (similarity == np.array([253, 231, 37])).all(axis=-1)  # the scale's upper end: cosine 1
    assert yellow.sum() > 1000


def test_what_does_not_fit_is_refused(features):
    with pytest.raises(DataError, match="one image"):
        similarity_map(features[None], (0, 0))
    with pytest.raises(DataError, match="outside"):
        similarity_map(features, (6, 0))
