"""Class names with synonyms."""

import logging

import pytest
import torch

from denserc.detection import load_detector
from denserc.openvocab.vocabulary import Synonyms
from denserc.structures import ConfigurationError, DataError


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


@pytest.fixture
def model(detector):
    return load_detector(detector)


def test_classes_of_one_text_are_named(model, caplog):
    with caplog.at_level(logging.WARNING):
        model.set_vocabulary(["green_ball", "red box", "green ball"])
    assert "'green_ball' = 'green ball'" in caplog.text


def test_classes_that_are_cut_off_are_named(model, caplog):
    names = ["a thing that is " + "very " * 100 + end for end in ("red", "blue")]
    with caplog.at_level(logging.WARNING):
        model.set_vocabulary(["red box", *names])
    assert "sentences of 2 classes are longer" in caplog.text and "very blue" in caplog.text


@pytest.mark.parametrize("name", ["background", "Background", " BACKGROUND. "])
def test_background_is_no_class_of_a_detector(model, name):
    with pytest.raises(ConfigurationError, match="leave .*(?i:background).* out of the names, or rename it"):
        model.set_vocabulary(["cat", name])


@pytest.mark.parametrize(("names", "novel"), [("cat", ()), (["cat"], "cat"), ("red box", ())])
def test_a_text_is_no_vocabulary(model, names, novel):
    before = model.vocabulary
    with pytest.raises(DataError, match="one text; expected is a list of names"):
        model.set_vocabulary(names, novel=novel)
    assert model.vocabulary == before
