"""Registered semantic sets: pairs of files, names that are asked and classes that are scored."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from denserc.data.datasets.builtin import register_all
from denserc.data.datasets.registration import dataset_vocabulary, register_from_yaml
from denserc.data.datasets.semantic import (
    SEMANTIC_SETS,
    learned_labels,
    register_semantic_dataset,
    semantic_records,
)
from denserc.data.images.labels import read_labels, write_labels
from denserc.data.vocabulary.published import vocabulary as published_vocabulary
from denserc.segmentation.data import SemanticMapper
from denserc.structures import ConfigurationError, DataError, Vocabulary

pytestmark = pytest.mark.usefixtures("forget_registered")


@pytest.fixture
def folders(tmp_path):
    """Three images, two label files, one of them in a folder below."""
    for name in ("b", "city/a", "c"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4)).save(tmp_path / "images" / f"{name}.jpg")
    write_labels(tmp_path / "labels/b.png", np.zeros((4, 5), np.uint8))
    write_labels(tmp_path / "labels/city/a.tif", np.zeros((4, 5), np.uint16))
    return tmp_path


def test_records_are_detectron2s(folders):
    records = semantic_records(folders / "images", folders / "labels")
    assert records == [
        {"file_name": str(folders / "images/b.jpg"), "sem_seg_file_name": str(folders / "labels/b.png"),
         "image_id": "b", "height": 4, "width": 5},
        {"file_name": str(folders / "images/city/a.jpg"), "sem_seg_file_name": str(folders / "labels/city/a.tif"),
         "image_id": "city/a", "height": 4, "width": 5},
    ]  # fmt: skip


def test_label_files_without_image_are_told(folders, caplog):
    (folders / "images/b.jpg").unlink()
    assert [r["image_id"] for r in semantic_records(folders / "images", folders / "labels")] == ["city/a"]
    assert "1 of 2 label files" in caplog.text


def test_absent_folders_and_other_names_are_explained(folders):
    with pytest.raises(DataError, match="has no images. datasets/README.md"):
        semantic_records(folders / "nowhere", folders / "labels")
    with pytest.raises(DataError, match="has no label files .PNG or TIFF."):
        semantic_records(folders / "images", folders / "nowhere")
    (folders / "labels/b.png").rename(folders / "labels/b_mask.png")
    (folders / "labels/city/a.tif").unlink()
    with pytest.raises(DataError, match="has an image of the same name"):
        semantic_records(folders / "images", folders / "labels")


def test_background_is_scored_and_never_asked(folders):
    register_semantic_dataset(
        "s", folders / "images", folders / "labels", classes=["cat", "background", "dog"], novel=["dog"]
    )
    metadata = MetadataCatalog.get("s")
    assert metadata.stuff_classes == ["cat", "background", "dog"] and metadata.prediction_labels == [0, 2, 1]
    vocabulary = dataset_vocabulary("s")
    assert vocabulary.names == ("cat", "dog") and vocabulary.novel == {"dog"}
    assert metadata.base_classes == ["cat", "background"]
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)


def test_training_never_learns_novel_pixels(folders):
    write_labels(folders / "labels/b.png", np.array([[0, 1, 2, 3, 255]], np.uint8))
    options = {"classes": ["background", "cat", "dog", "car"], "novel": ["dog"]}
    register_semantic_dataset("t", folders / "images", folders / "labels", training=True, **options)
    register_semantic_dataset("v", folders / "images", folders / "labels", **options)
    table = DatasetCatalog.get("t")[0]["sem_seg_table"]
    learned = learned_labels(read_labels(folders / "labels/b.png"), table)
    assert learned.tolist() == [[-1, 0, -1, 1, -1]]
    assert dataset_vocabulary("t") == Vocabulary(["cat", "dog", "car"], novel=["dog"])  # in evaluation
    assert dataset_vocabulary("t", training=True) == Vocabulary(["cat", "car"])
    assert dataset_vocabulary("v", training=True) == dataset_vocabulary("v")
    with pytest.raises(DataError, match="nothing to learn: all of its 1 classes are novel"):
        register_semantic_dataset("t", folders, folders, classes=["dog"], novel=["dog"], training=True)
    assert "sem_seg_table" not in DatasetCatalog.get("v")[0]
    mapped = SemanticMapper([], training=True)({**DatasetCatalog.get("t")[0], "file_name": _wide(folders)})
    assert mapped["sem_seg"].tolist() == [[-1, 0, -1, 1, -1]] and "sem_seg_table" not in mapped


def test_published_training_learns_all_171_names(tmp_path):
    register_all(tmp_path)
    names = dataset_vocabulary("coco_2017_train_stuff_all_sem_seg", training=True)
    assert names == dataset_vocabulary("coco_2017_train_stuff_all_sem_seg") and len(names) == 171
    assert names.names == published_vocabulary("coco_stuff").names


def _wide(folders) -> str:
    Image.new("RGB", (5, 1)).save(folders / "wide.png")
    return str(folders / "wide.png")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"text_classes": ["a", "b", "c"], "prediction_labels": [0, 1]}, "each of the 3 text_classes"),
        ({"text_classes": ["a", "b"], "prediction_labels": [0, 2]}, "within 0..1"),
        ({"novel": ["z"]}, "Novel classes"),
    ],
)
def test_classes_that_do_not_fit_are_refused(folders, options, message):
    with pytest.raises(DataError, match=message):
        register_semantic_dataset("s", folders / "images", folders / "labels", classes=["a", "b"], **options)


def test_every_published_set_is_registered_consistently(tmp_path):
    register_all(tmp_path)
    for one in SEMANTIC_SETS:
        metadata, asked = MetadataCatalog.get(one.name), dataset_vocabulary(one.name)
        classes = len(metadata.stuff_classes)
        assert metadata.evaluator_type == "sem_seg" and metadata.ignore_label == one.ignore_label
        assert set(metadata.prediction_labels) == set(range(classes))
        same = [metadata.stuff_classes[k] == n for k, n in zip(metadata.prediction_labels, asked.names, strict=False)]
        assert sum(same) >= 19 and (all(same) or one.background == "rest")
        with pytest.raises(DataError, match="datasets/README.md"):
            DatasetCatalog.get(one.name)


def test_voc_with_background_is_asked_59_names_and_scores_21(tmp_path):
    register_all(tmp_path)
    metadata = MetadataCatalog.get("voc_2012_test_background_sem_seg")
    assert len(metadata.text_classes) == 59 and len(metadata.stuff_classes) == 21
    assert metadata.stuff_classes[20] == "background"
    assert metadata.prediction_labels == [*range(20), *[20] * 39]


def test_detectron2s_own_semantic_sets_have_a_vocabulary():
    assert dataset_vocabulary("cityscapes_fine_sem_seg_val").names[:2] == ("road", "sidewalk")
    assert len(dataset_vocabulary("ade20k_sem_seg_val")) == 150


def test_own_data_from_one_description(folders):
    (folders / "d.yaml").write_text(
        "name: street\nclasses: [background, sky, tree]\nnovel: [tree]\nignore: 254\n"
        "train: {images: images, labels: labels}\nval: {images: images, labels: labels}\n"
    )
    assert register_from_yaml(folders / "d.yaml") == ("street_train", "street_val")
    assert [r["image_id"] for r in DatasetCatalog.get("street_val")] == ["b", "city/a"]
    metadata = MetadataCatalog.get("street_train")
    assert metadata.training and metadata.ignore_label == 254 and not MetadataCatalog.get("street_val").training
    assert dataset_vocabulary("street_val").names == ("sky", "tree")
    (folders / "names.json").write_text(json.dumps(["sky", "tree"]))
    (folders / "d.yaml").write_text("name: s2\nclasses: names.json\nval: {images: images, labels: labels}\n")
    assert register_from_yaml(folders / "d.yaml") == ("s2_val",)
    assert dataset_vocabulary("s2_val").names == ("sky", "tree")


@pytest.mark.parametrize(
    "text, message",
    [
        ("name: s\nclasses: [a]\nval: {images: x, annotations: y}", "labels"),
        ("name: s\nclasses: [a]\nbase: [b]\nval: {images: x, labels: y}", "base"),
        ("name: s\nclasses: [a]", "neither 'train' nor 'val'"),
        ("name: s\nclasses: [a]\nignore: no\nval: {images: x, labels: y}", "'ignore' is False; expected is a value"),
        ("name: s\nclasses: [yes]\nval: {images: x, labels: y}", "YAML reads as no text"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(folders, text, message):
    (folders / "d.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        register_from_yaml(folders / "d.yaml")
