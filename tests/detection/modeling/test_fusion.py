import pytest
import torch

from denserc.detection.modeling.classifier import FusionExponents, fuse_scores
from denserc.structures import ConfigurationError

NOVEL = torch.tensor([False, True, False])


def test_background_counts_as_base():
    exponents = FusionExponents(base=0.1, novel=0.8, unsplit=0.2).for_classes(NOVEL)
    torch.testing.assert_close(exponents, torch.tensor([0.1, 0.8, 0.1, 0.1]))


def test_one_exponent_where_nothing_is_novel():
    exponents = FusionExponents(base=0.1, novel=0.8, unsplit=0.2).for_classes(torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(exponents, torch.full((3,), 0.2))


def test_the_ends_are_the_two_sides_exactly():
    detector, encoder = torch.rand(6, 4).softmax(1), torch.rand(6, 4).softmax(1)
    encoder[0] = 0
    assert torch.equal(fuse_scores(detector, encoder, torch.zeros(4)), detector)
    assert torch.equal(fuse_scores(detector, encoder, torch.ones(4)), encoder)


def test_exponents_outside_of_0_to_1_are_refused():
    with pytest.raises(ConfigurationError, match="novel = 1.5"):
        FusionExponents(base=0.1, novel=1.5, unsplit=0.2)
