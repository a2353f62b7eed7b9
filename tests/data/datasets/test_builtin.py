"""The sets that configs name: registered without files, found in the documented layout."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from denserc.data.datasets.builtin import register_all
from denserc.data.datasets.registration import dataset_vocabulary
from denserc.data.datasets.splits import write_ov_coco_splits
from denserc.data.vocabulary.published import vocabulary
from denserc.structures import DataError, Vocabulary

NAMES = {
    "ov_coco_2017_train_base", "ov_coco_2017_val", "coco_2017_panoptic_val_regions",
    "ov_lvis_v1_train_norare", "ov_lvis_v1_val",
    "coco_2017_val_transfer", "objects365_v1_val", "objects365_v2_val", "voc_2007_test",
    "coco_2017_train_images", "voc_2012_segmentation_train_images", "ade20k_training_images",
    "miniature_ov_coco_train_base", "miniature_ov_coco_val", "miniature_panoptic_val_regions",
    "miniature_transfer_val", "miniature_lvis_train_norare", "miniature_lvis_val",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("forget_registered")


def test_absent_files_are_an_error_only_when_used(tmp_path):
    register_all(tmp_path)
    assert set(DatasetCatalog.list()) >= NAMES
    assert set(dataset_vocabulary("ov_coco_2017_val").names) == set(vocabulary("ov_coco").names)
    for name in NAMES:
        with pytest.raises(DataError, match=str(tmp_path)):
            DatasetCatalog.get(name)
    with pytest.raises(DataError, match="denserc dataset miniature"):
        dataset_vocabulary("miniature_ov_coco_val")


def test_train_and_val_number_the_classes_alike(tmp_path):
    register_all(tmp_path)
    train, val = (MetadataCatalog.get(f"ov_coco_2017_{part}") for part in ("train_base", "val"))
    assert train.thing_classes == val.thing_classes
    assert len(val.base_classes) == 48 and len(val.novel_classes) == 17
    assert MetadataCatalog.get("ov_lvis_v1_val").evaluator_type == "ov_lvis"


def test_the_miniature_brings_its_own_classes(coco, base, novel, tmp_path):
    register_all(tmp_path)  # before the files are there
    annotations = tmp_path / "miniature" / "coco" / "annotations"
    annotations.mkdir(parents=True)
    source = annotations / "instances_val2017.json"
    source.write_text(json.dumps(coco))
    classes = Vocabulary((*base, *novel), novel=novel)
    write_ov_coco_splits(annotations / "ov_coco", classes, train_json=source, val_json=source)

    transfer = tmp_path / "miniature" / "transfer" / "annotations"
    transfer.mkdir(parents=True)
    (transfer / "instances_val2017.json").write_text(json.dumps(coco))

    for category, frequency in zip(coco["categories"], "rfffff", strict=True):
        category["frequency"] = frequency
    lvis = tmp_path / "miniature" / "lvis"
    lvis.mkdir()
    (lvis / "lvis_v1_val.json").write_text(json.dumps(coco))

    register_all(tmp_path)
    assert dataset_vocabulary("miniature_ov_coco_train_base") == classes
    assert len(DatasetCatalog.get("miniature_ov_coco_train_base")) == 2
    val = DatasetCatalog.get("miniature_ov_coco_val")
    assert [r["file_name"] for r in val] == [
        str(tmp_path / "miniature" / "coco" / "val2017" / f"{n}.jpg") for n in "abc"
    ]
    assert dataset_vocabulary("miniature_transfer_val") == Vocabulary(
        ["person", "train", "cat", "dog", "horse", "toaster"]
    )
    assert dataset_vocabulary("miniature_lvis_val").novel == {"dog"}


@pytest.mark.parametrize(
    "name, classes", [("coco_2017_val_transfer", 80), ("objects365_v1_val", 365), ("objects365_v2_val", 365),
                      ("voc_2007_test", 20)],
)  # fmt: skip
def test_transfer_sets_have_no_split(tmp_path, name, classes):
    register_all(tmp_path)
    assert len(dataset_vocabulary(name)) == classes and not dataset_vocabulary(name).novel


def test_images_of_coco_have_its_ids(tmp_path):
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    (tmp_path / "coco" / "train2017" / "000000000009.jpg").write_bytes(b"")
    register_all(tmp_path)
    assert [r["image_id"] for r in DatasetCatalog.get("coco_2017_train_images")] == [9]
    (tmp_path / "coco" / "train2017" / "cat.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="cat.jpg"):
        DatasetCatalog.get("coco_2017_train_images")
