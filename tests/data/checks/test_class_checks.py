"""Classes of a set against its file, and against text embeddings."""

import pytest
import torch

from denserc.data.checks import check_embeddings, check_vocabulary
from denserc.structures import TextEmbeddings

BIRDS = ("sparrow", "robin", "kingfisher")


def embeddings(*names, fingerprint="f"):
    return TextEmbeddings(names, torch.eye(len(names)), fingerprint)


def test_a_class_that_the_file_lacks_comes_with_the_closest(content, make):
    (finding, *_) = check_vocabulary(make(content, ("sparrow", "robin", "king fishers"), novel=()))
    assert finding.check == "class-absent" and "did you mean 'kingfisher'" in finding.examples[0]


def test_novel_classes_may_be_absent_from_training_alone(content, make, kinds):
    content["categories"].pop()
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] < 3]
    assert kinds(check_vocabulary(make(content, training=True))) == {}
    assert kinds(check_vocabulary(make(content)))["class-absent"] == "error"


def test_classes_without_instances(content, make, kinds):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation["category_id"] == 3)
    assert kinds(check_vocabulary(make(content))) == {"class-empty": "warning"}
    assert kinds(check_vocabulary(make(content, training=True))) == {}  # of a novel class none is expected


def test_novel_boxes_in_training_are_noted(content, make, kinds):
    assert kinds(check_vocabulary(make(content, training=True))) == {"novel-hidden": "note"}


def test_another_order_is_noted(content, make, kinds):
    assert kinds(check_vocabulary(make(content, BIRDS[::-1]))) == {"class-order": "note"}


@pytest.mark.parametrize("name", ["class_1", "17", "Category 3", "label-0"])
def test_numbers_are_no_names(content, make, kinds, name):
    content["categories"][0]["name"] = name
    assert kinds(check_vocabulary(make(content, (name, *BIRDS[1:])))) == {"class-no-word": "warning"}


def test_background_is_no_class(content, make, kinds):
    content["categories"][0]["name"] = "background"
    assert kinds(check_vocabulary(make(content, ("background", *BIRDS[1:])))) == {"class-background": "error"}


def test_embeddings_in_any_order_fit(content, make):
    assert check_embeddings(make(content), embeddings("background", *BIRDS[::-1]), "f") == []


def test_embeddings_that_do_not_fit(content, make, kinds):
    birds = make(content)
    assert kinds(check_embeddings(birds, embeddings(*BIRDS))) == {"embedding-absent": "error"}
    complete = (*BIRDS, "background")
    assert kinds(check_embeddings(birds, embeddings(*complete), "g")) == {"embedding-encoder": "error"}
    unknown = embeddings(*complete, fingerprint="")
    assert kinds(check_embeddings(birds, unknown, "g")) == {"embedding-unknown-encoder": "warning"}
