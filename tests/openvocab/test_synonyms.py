"""Class names with synonyms."""

import pytest
import torch

from denserc.openvocab.vocabulary import Synonyms
from denserc.structures import DataError


@pytest.mark.parametrize(
    ("rule", "phrases"),
    [("whole", ("Couch, sofa , ",)), ("first", ("couch",)), ("mean", ("couch", "sofa"))],
)
def test_phrases_of_a_name(rule, phrases):
    assert Synonyms(rule).phrases("Couch, sofa , ") == phrases


def test_a_name_of_commas_is_refused():
    with pytest.raises(DataError, match="letters"):
        Synonyms.FIRST.phrases(" , ,")


def test_vectors_are_picked_or_averaged():
    names, phrases = ["a, b", "b"], ["a", "b"]
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(Synonyms.FIRST.combine(names, phrases, vectors), vectors)
    half = 0.5**0.5
    torch.testing.assert_close(Synonyms.MEAN.combine(names, phrases, vectors), torch.tensor([[half, half], [0.0, 1.0]]))


def test_names_with_the_same_phrases_are_found():
    names = ["bag", "pot", "bag, handbag", "bed ", "bed"]
    assert Synonyms.FIRST.repeated(names) == [("bag", "bag, handbag"), ("bed ", "bed")]
    assert Synonyms.MEAN.repeated(names) == [("bed ", "bed")]
