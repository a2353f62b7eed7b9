import pytest
import torch

from denserc.structures import (
    ConfigurationError,
    DataError,
    FingerprintMismatchError,
    PixelStatistics,
    TextEmbeddings,
    Vocabulary,
)


def test_vocabulary_matches_by_name_and_knows_its_novel_classes():
    vocabulary = Vocabulary(["cat", "dog", "bird"], novel=["dog"])
    assert vocabulary.index("bird") == 2 and len(vocabulary) == 3
    assert vocabulary.novel_mask().tolist() == [False, True, False]
    assert vocabulary.base == {"cat", "bird"}


@pytest.mark.parametrize(
    ("names", "novel", "message"),
    [
        ([], [], "at least one"),
        (["a", "a"], [], "more than once"),
        (["a", " "], [], "non-empty"),
        (["a"], ["b"], "'b'"),
    ],
)
def test_vocabularies_that_make_no_sense_are_refused(names, novel, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(names, novel)


def test_unknown_class_names_are_errors():
    with pytest.raises(DataError, match="'cow'"):
        Vocabulary(["cat"]).index("cow")


def test_text_embeddings_are_selected_by_name_in_any_order():
    embeddings = TextEmbeddings(("a", "b", "c"), torch.eye(3))
    assert embeddings.select(["c", "a"]).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(DataError, match=r"\['z'\]"):
        embeddings.select(["a", "z"])


def test_only_text_embeddings_of_another_encoder_are_refused():
    TextEmbeddings(("a",), torch.ones(1, 2)).require_fingerprint("x")
    TextEmbeddings(("a",), torch.ones(1, 2), "x").require_fingerprint("x")
    with pytest.raises(FingerprintMismatchError, match="y.*x"):
        TextEmbeddings(("a",), torch.ones(1, 2), "y").require_fingerprint("x")


def test_text_embeddings_of_wrong_shape_or_nan_are_refused():
    with pytest.raises(DataError, match="2 names"):
        TextEmbeddings(("a", "b"), torch.ones(1, 2))
    with pytest.raises(DataError, match="finite"):
        TextEmbeddings(("a",), torch.tensor([[float("nan")]]))


def test_pixel_statistics_normalize_and_are_checked():
    pixels = PixelStatistics((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert pixels.normalize(torch.ones(1, 3, 1, 1)).flatten().tolist() == [2.0, 1.0, 0.5]
    assert pixels.mean_255 == (127.5, 127.5, 127.5)
    with pytest.raises(ConfigurationError, match="positive"):
        PixelStatistics((0, 0, 0), (1, 0, 1))
