"""Pixel-adaptive refinement: properties of its weights and its result."""

import torch

from denserc.segmentation.refinement import affinities, refined


def test_weights_of_neighbors_sum_to_one():
    weights = affinities(torch.randn(3, 30, 40, generator=torch.Generator().manual_seed(0)))
    assert weights.shape == (16, 30, 40)
    torch.testing.assert_close(weights.sum(0), torch.ones(30, 40))


def test_constant_maps_stay_and_a_plain_picture_blurs_alike():
    weights = affinities(torch.zeros(3, 30, 40))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 16))
    maps = torch.full((2, 30, 40), 0.7)
    torch.testing.assert_close(refined(maps, weights, 10), maps)
    assert torch.equal(refined(maps, weights, 0), maps)


def test_scores_stay_on_their_side_of_an_edge():
    picture = torch.zeros(3, 40, 80)
    picture[:, :, 40:] = 1.0
    scores = (torch.rand(1, 40, 80, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    scores[:, :, 40:] = 1 - scores[:, :, 40:]
    found = refined(scores, affinities(picture), 10)[0]
    assert found[:, :40].max() < 0.5 < found[:, 40:].min()
