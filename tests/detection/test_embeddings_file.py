"""A detector that takes its text embeddings from a file (MODEL.VOCABULARY.EMBEDDINGS)."""

import logging

import pytest
import torch

from denserc.data.vocabulary.text_embeddings import embed_names, save_text_embeddings
from denserc.structures import DataError, FingerprintMismatchError

CLASSES = ["lamp", "cup"]


@pytest.fixture
def with_file(tiny, tmp_path):
    """with_file(names, write) -> the tiny detector, reading a file of these names written by its own tower."""

    def make(names=("background", "cup", "ball", "lamp"), write=None):
        tower = tiny().text_tower
        embeddings = embed_names(tower, names, ("a {}.",))
        path = tmp_path / ("e.pt" if write else "e.safetensors")
        (write or save_text_embeddings)(path, embeddings)
        model = tiny()
        model.embeddings_file = str(path)
        return model

    return make


def in_use(model):
    return dict(zip([*model.vocabulary.names, "background"], model.roi_heads.classes.vectors, strict=True))


def test_a_file_gives_what_embedding_gives_in_any_order(with_file, tiny):
    embedded, read = tiny(), with_file()
    embedded.set_vocabulary(CLASSES)
    read.set_vocabulary(CLASSES)
    for name, vector in in_use(embedded).items():
        torch.testing.assert_close(in_use(read)[name], vector)


def test_another_encoders_file_is_refused(with_file):
    model = with_file()
    with torch.no_grad():
        model.text_tower.letters.weight.mul_(2)
    with pytest.raises(FingerprintMismatchError):
        model.set_vocabulary(CLASSES)


def test_a_file_of_unknown_origin_is_used_with_a_warning(with_file, caplog):
    def as_the_originals(path, embeddings):
        torch.save(dict(zip(embeddings.names, embeddings.vectors, strict=True)), path)

    model = with_file(write=as_the_originals)
    with caplog.at_level(logging.WARNING, "denserc"):
        model.set_vocabulary(CLASSES)
    assert "does not say which text encoder made it" in caplog.text


@pytest.mark.parametrize("absent", ["lamp", "background"])
def test_an_absent_name_is_an_error(with_file, absent):
    model = with_file([name for name in ("background", "cup", "ball", "lamp") if name != absent])
    with pytest.raises(DataError, match=absent):
        model.set_vocabulary(CLASSES)
