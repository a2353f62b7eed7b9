"""Label files from official files drawn by hand, through the scripts as a user runs them; then registered and read."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util

from denserc.data.datasets.registration import register_from_yaml
from denserc.data.datasets.semantic import SEMANTIC_SETS, register_semantic_sets
from denserc.data.datasets.semantic_files import CLASSES, PUBLISHED_COUNTS
from denserc.data.images.labels import read_labels, write_labels
from tests.data.test_prepare_scripts import run

pytestmark = pytest.mark.usefixtures("forget_registered")


def picture(path: Path, size=(2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (9, 9, 9)).save(path)


def prepared(root: Path, script_set: str, registered: str, *more) -> dict[str, list]:
    """{image id: label map} of a set after its script."""
    done = run("prepare_semantic.py", script_set, "--root", root, "--any-count", *more)
    assert done.returncode == 0, done.stderr
    register_semantic_sets(root)
    return {r["image_id"]: read_labels(r["sem_seg_file_name"]).tolist() for r in DatasetCatalog.get(registered)}


def test_registered_counts_are_those_of_the_scripts():
    counts = sorted((one.count, len(_classes(one))) for one in SEMANTIC_SETS)
    assert counts == sorted((count, CLASSES[name]) for (name, _), count in PUBLISHED_COUNTS.items())


def _classes(one) -> list[str]:
    register_semantic_sets("nowhere")
    return MetadataCatalog.get(one.name).stuff_classes


def test_coco_stuff_and_object(tmp_path):
    write_labels(tmp_path / "coco-stuff/annotations/val2017/000000000139.png", np.array([[0, 91, 255]], np.uint8))
    picture(tmp_path / "coco/val2017/000000000139.jpg", (1, 3))  # the detection sets' folder will do
    stuff = prepared(tmp_path, "coco_stuff", "coco_2017_test_stuff_all_sem_seg")
    assert stuff == {"000000000139": [[0, 80, 255]]}
    assert prepared(tmp_path, "coco_object", "coco_2017_test_object_sem_seg") == {"000000000139": [[1, 0, 0]]}


def test_counts_are_demanded_before_anything_is_written(tmp_path):
    write_labels(tmp_path / "coco-stuff/annotations/val2017/000000000139.png", np.array([[0]], np.uint8))
    done = run("prepare_semantic.py", "coco_stuff", "--root", tmp_path)
    assert done.returncode != 0 and "has 1 label files, but 5,000 were expected" in done.stderr
    assert not (tmp_path / "coco-stuff/annotations_detectron2").exists()


def test_ade20k_150(tmp_path):
    folder = tmp_path / "ADEChallengeData2016"
    write_labels(folder / "annotations/validation/ADE_val_1.png", np.array([[0, 1, 150]], np.uint8))
    picture(folder / "images/validation/ADE_val_1.jpg", (1, 3))
    assert prepared(tmp_path, "ade20k_150", "ade20k_150_test_sem_seg") == {"ADE_val_1": [[255, 0, 149]]}
    write_labels(folder / "annotations/validation/ADE_val_1.png", np.array([[255]], np.uint8))
    done = run("prepare_semantic.py", "ade20k_150", "--root", tmp_path, "--any-count")
    assert done.returncode != 0 and "Were they converted?" in done.stderr


def test_ade20k_847_shrinks_images_with_their_16_bit_labels(tmp_path):
    folder = tmp_path / "ADE20K_2021_17_01/images/ADE/validation/home/attic"
    folder.mkdir(parents=True)
    rgb = np.zeros((600, 800, 3), np.uint8)
    rgb[:, :400] = (2978 // 256 * 10, 2978 % 256, 1)  # wall
    rgb[:, 400:] = (3148 // 256 * 10, 3148 % 256, 1)  # the last class
    rgb[:100] = (1, 1, 1)
    Image.fromarray(rgb).save(folder / "ADE_val_00000001_seg.png")
    picture(folder / "ADE_val_00000001.jpg", (600, 800))
    Image.fromarray(rgb[:2]).save(folder / "ADE_train_00000001_seg.png")
    labels = np.array(prepared(tmp_path, "ade20k_847", "ade20k_full_sem_seg_freq_val_all")["ADE_val_00000001"])
    assert labels.shape == (512, 682) and np.unique(labels).tolist() == [0, 846, 65535]
    assert (labels[0] == 65535).all() and labels[-1, 0] == 0 and labels[-1, -1] == 846
    record = DatasetCatalog.get("ade20k_full_sem_seg_freq_val_all")[0]
    assert Image.open(record["file_name"]).size == (682, 512) and record["sem_seg_file_name"].endswith(".tif")


@pytest.fixture
def voc12(tmp_path):
    folder = tmp_path / "VOCdevkit/VOC2012"
    for name, values in (("2007_1", [[0, 15, 255]]), ("2007_2", [[0, 0, 255]]), ("2007_3", [[1, 1, 1]])):
        write_labels(folder / f"SegmentationClass/{name}.png", np.array(values, np.uint8))
        picture(folder / f"JPEGImages/{name}.jpg", (1, 3))
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "ImageSets/Segmentation/val.txt").write_text("2007_1\n2007_2\n")
    return tmp_path


def test_voc_in_its_three_forms(voc12):
    assert prepared(voc12, "voc_20", "voc_2012_test_sem_seg") == {"2007_1": [[255, 14, 255]]}  # nothing in the other
    with_background = prepared(voc12, "voc_20_background", "voc_2012_test_background_sem_seg")
    assert with_background == {"2007_1": [[20, 14, 255]], "2007_2": [[20, 20, 255]]}
    assert prepared(voc12, "voc_21", "voc_2012_test_21_sem_seg")["2007_1"] == [[0, 15, 255]]
    done = run("prepare_semantic.py", "voc_20", "--root", voc12, "--any-count")
    assert "1 label files, 1 without any scored pixel left out; 1 of 20 classes occur" in done.stdout


@pytest.fixture
def voc10(tmp_path):
    """Two validation images and one of training; the second mask is painted over the first."""
    whole = mask_util.encode(np.asfortranarray(np.ones((2, 3), np.uint8)))
    corner = np.zeros((2, 3), np.uint8)
    corner[0, 2] = 1
    corner = mask_util.encode(np.asfortranarray(corner))
    masks = [{**rle, "counts": rle["counts"].decode()} for rle in (whole, corner)]
    size = {"height": 2, "width": 3}
    content = {
        "images": [
            {"file_name": "2008_2.jpg", "image_id": 2, "phase": "val", **size},
            {"file_name": "2008_1.jpg", "image_id": 1, "phase": "val", **size},
            {"file_name": "2008_3.jpg", "image_id": 3, "phase": "train", **size},
        ],
        "annos_segmentation": [
            {"image_id": 1, "category_id": 2, "segmentation": masks[0]},
            {"image_id": 1, "category_id": 458, "segmentation": masks[1]},
            {"image_id": 2, "category_id": 397, "segmentation": masks[1]},
            {"image_id": 3, "category_id": 2, "segmentation": masks[0]},
        ],
    }
    folder = tmp_path / "VOCdevkit/VOC2010"
    for name in ("2008_1", "2008_2", "2008_3"):
        picture(folder / f"JPEGImages/{name}.jpg")
    (folder / "trainval_merged.json").write_text(json.dumps(content))
    return tmp_path


def test_pascal_context_59_and_60(voc10):
    assert prepared(voc10, "context_59", "context_59_test_sem_seg") == {
        "2008_1": [[0, 0, 58], [0, 0, 0]], "2008_2": [[255, 255, 49], [255, 255, 255]],
    }  # fmt: skip
    assert prepared(voc10, "context_60", "context_60_test_sem_seg")["2008_2"] == [[0, 0, 50], [0, 0, 0]]


def test_pascal_context_459_from_mat_files(voc10):
    scipy_io = pytest.importorskip("scipy.io")
    folder = voc10 / "VOCdevkit/VOC2010/trainval"
    folder.mkdir()
    for name in ("2008_1", "2008_2"):
        scipy_io.savemat(folder / f"{name}.mat", {"LabelMap": np.array([[1, 431, 459], [2, 2, 2]], np.uint16)})
    found = prepared(voc10, "context_459", "context_459_test_sem_seg")
    assert found == dict.fromkeys(("2008_1", "2008_2"), [[0, 430, 458], [1, 1, 1]])


def test_cityscapes(tmp_path):
    stem = "frankfurt_000000_000294"
    write_labels(
        tmp_path / f"cityscapes/gtFine/val/frankfurt/{stem}_gtFine_labelIds.png", np.array([[7, 33, 4]], np.uint8)
    )
    picture(tmp_path / f"cityscapes/leftImg8bit/val/frankfurt/{stem}_leftImg8bit.png", (1, 3))
    found = prepared(tmp_path, "cityscapes", "cityscapes_19_test_sem_seg")
    assert found == {f"frankfurt/{stem}_leftImg8bit": [[0, 18, 255]]}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_absent_official_files_are_named(name, tmp_path):
    done = run("prepare_semantic.py", name, "--root", tmp_path)
    assert done.returncode == 2 and "error:" in done.stderr and str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_training_split_is_only_cocos(tmp_path):
    done = run("prepare_semantic.py", "voc_20", "--root", tmp_path, "--split", "train")
    assert done.returncode == 2 and "validation only" in done.stderr


def test_own_set_from_panoptic_annotations(tmp_path):
    ids = np.array([[1, 1, 300], [0, 7, 7]])
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.stack([ids % 256, ids // 256, ids * 0], -1).astype(np.uint8)).save(tmp_path / "masks/a.png")
    picture(tmp_path / "images/a.jpg")
    segments = [
        {"id": 1, "category_id": 184, "bbox": [0, 0, 2, 1], "iscrowd": 0},
        {"id": 300, "category_id": 1, "bbox": [2, 0, 1, 1], "iscrowd": 0},
        {"id": 7, "category_id": 1, "bbox": [1, 1, 2, 1], "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 184, "name": "tree", "isthing": 0}, {"id": 1, "name": "person", "isthing": 1}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    done = run(
        "prepare_own_semantic.py", "--panoptic", tmp_path / "panoptic.json", "--masks", tmp_path / "masks",
        "--images", tmp_path / "images", "--out", tmp_path / "out", "--name", "street",
    )  # fmt: skip
    assert done.returncode == 0 and "2 of 2 classes occur" in done.stdout, done.stderr
    assert register_from_yaml(tmp_path / "out/street.yaml") == ("street_val",)
    (record,) = DatasetCatalog.get("street_val")
    assert Path(record["file_name"]).resolve() == (tmp_path / "images/a.jpg").resolve()
    assert read_labels(record["sem_seg_file_name"]).tolist() == [[1, 1, 0], [255, 0, 0]]
    assert MetadataCatalog.get("street_val").stuff_classes == ["person", "tree"]


@pytest.mark.parametrize("background, expected", [(True, [[2, 2, 0], [2, 1, 0]]), (False, [[1, 1, 9], [1, 0, 9]])])
def test_own_set_from_instance_masks(background, expected, tmp_path):
    picture(tmp_path / "images/a.jpg")
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "segmentation": {"size": [2, 3], "counts": [3, 1, 2]}},  # (1, 1)
            {"image_id": 5, "category_id": 3, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},  # larger, listed later
            {"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1]},
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    done = run(
        "prepare_own_semantic.py", "--instances", tmp_path / "instances.json", "--images", tmp_path / "images",
        "--out", tmp_path / "out", "--name", "pets", "--split", "train", "--ignore", 9,
        *(["--background"] if background else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert register_from_yaml(tmp_path / "out/pets.yaml") == ("pets_train",)
    (record,) = DatasetCatalog.get("pets_train")
    assert read_labels(record["sem_seg_file_name"]).tolist() == expected


def test_an_ignore_label_among_the_classes_is_refused(tmp_path):
    (tmp_path / "i.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]})
    )
    done = run(
        "prepare_own_semantic.py", "--instances", tmp_path / "i.json", "--images", tmp_path, "--out", tmp_path,
        "--name", "s", "--ignore", 0,
    )  # fmt: skip
    assert done.returncode == 2 and "must be within 1..65535" in done.stderr
