import pytest
import torch
import torch.nn.functional as F

from denserc.detection.modeling.classifier import CosineClassifier, FusionExponents, fuse_scores, masked_cross_entropy
from denserc.openvocab.vocabulary import ClassEmbeddings
from denserc.structures import BACKGROUND, ConfigurationError, DataError, TextEmbeddings, Vocabulary


def loss(logits, labels, novel=(False,) * 4, background=0.6):
    novel = torch.tensor(novel)
    return masked_cross_entropy(logits, labels, novel=novel, background_weight=background)


def data(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator), torch.randint(5, (n,), generator=generator)


def test_cosine_ignores_length():
    classifier = CosineClassifier(temperature=10.0, learned=True)
    vectors = F.normalize(torch.randn(4, 8), dim=1)
    features = torch.randn(3, 8)
    logits = classifier(features, vectors)
    torch.testing.assert_close(logits, classifier(features * 100, vectors))
    torch.testing.assert_close(classifier(vectors, vectors).diagonal(), torch.full((4,), 10.0))


def test_temperature_of_the_test_leaves_training_alone():
    vectors = F.normalize(torch.randn(4, 8), dim=1)
    classifier = CosineClassifier(temperature=10.0, learned=True, test_temperature=50.0)
    assert classifier.train()(vectors, vectors).max().item() == pytest.approx(10.0)
    assert classifier.eval()(vectors, vectors).max().item() == pytest.approx(50.0)


def test_a_dead_feature_has_cosine_zero_and_a_finite_gradient():
    features = torch.zeros(2, 8, requires_grad=True)
    logits = CosineClassifier(temperature=10.0, learned=False)(features, F.normalize(torch.randn(4, 8), dim=1))
    assert (logits == 0).all()
    logits.softmax(1)[:, 0].sum().backward()
    assert torch.isfinite(features.grad).all()


def test_without_novel_classes_it_is_weighted_cross_entropy():
    logits, labels = data()
    weights = torch.tensor([1, 1, 1, 1, 0.6])
    summed = F.cross_entropy(logits, labels, weights, reduction="sum")
    torch.testing.assert_close(loss(logits, labels), summed / len(labels))


def test_novel_classes_do_not_exist():
    logits, labels = data()
    novel = (False, True, False, False)
    kept = labels != 1
    smaller = loss(logits[kept][:, [0, 2, 3, 4]], torch.tensor([0, 9, 1, 2, 3])[labels][kept], novel=(False,) * 3)
    torch.testing.assert_close(loss(logits, labels, novel=novel) * len(labels), smaller * kept.sum())
    logits.requires_grad_()
    loss(logits, labels, novel=novel).backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, 1] == 0).all() and (logits.grad[~kept] == 0).all()


def test_no_samples():
    assert loss(torch.zeros(0, 5, requires_grad=True), torch.zeros(0).long()).item() == 0


def test_embeddings_are_taken_by_name():
    vectors = F.normalize(torch.randn(3, 8), dim=1)
    classes = ClassEmbeddings(embed_dim=8)
    classes.set(Vocabulary(["b", "a"], novel=["a"]), TextEmbeddings(("a", BACKGROUND, "b"), vectors))
    torch.testing.assert_close(classes.require(), vectors[[2, 0, 1]])
    assert classes.novel.tolist() == [False, True]
    assert not classes.state_dict()


def test_wrong_embeddings_are_refused():
    classes = ClassEmbeddings(embed_dim=8)
    with pytest.raises(ConfigurationError, match="set_vocabulary"):
        classes.require()
    with pytest.raises(DataError, match="background"):
        classes.set(Vocabulary(["a"]), TextEmbeddings(("a",), torch.ones(1, 8)))
    with pytest.raises(ConfigurationError, match="width 4"):
        classes.set(Vocabulary(["a"]), TextEmbeddings(("a", BACKGROUND), torch.ones(2, 4)))


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
