"""A COCO file becomes a described set that can be registered."""

import json
import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util

from denserc.commands.dataset_new import main
from denserc.data import dataset_vocabulary, register_from_yaml
from denserc.data.images.labels import read_labels, write_labels
from denserc.structures import DataError, DenseRCError, Vocabulary
from tests.paths import FIXTURES

pytestmark = pytest.mark.usefixtures("forget_registered")


@pytest.fixture
def arguments(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": 9, "width": 9} for i in range(10)]
    boxes = [{"id": i, "image_id": i, "category_id": i % 3, "bbox": [1, 1, 4, 4], "area": 16} for i in range(10)]
    categories = [{"id": 2, "name": "tea pot"}, {"id": 0, "name": "no"}, {"id": 1, "name": "hen "}]
    (tmp_path / "photos").mkdir()
    for image in images:
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / image["file_name"])
    (tmp_path / "all.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    files = [
        "--annotations",
        tmp_path / "all.json",
        "--images",
        tmp_path / "photos",
        "--output",
        tmp_path / "my" / "new",
    ]
    return ["birds", *map(str, files)]


def test_the_description_registers_what_it_says(arguments, tmp_path):
    main([*arguments, "--novel", "Teapot", "--val", "0.3"])
    assert register_from_yaml(tmp_path / "my" / "new" / "birds.yaml") == ("birds_train", "birds_val")
    assert dataset_vocabulary("birds_val") == Vocabulary(["no", "hen", "tea pot"], novel=["tea pot"])
    train, val = (DatasetCatalog.get(f"birds_{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert not {record["file_name"] for record in train} & {record["file_name"] for record in val}
    assert (tmp_path / "my" / "new" / train[0]["file_name"]).resolve().parent == tmp_path / "photos"


def test_a_set_to_evaluate_on_alone(arguments, tmp_path):
    main([*arguments, "--val", "1"])
    assert register_from_yaml(tmp_path / "my" / "new" / "birds.yaml") == ("birds_val",)
    assert not dataset_vocabulary("birds_val").novel and len(DatasetCatalog.get("birds_val")) == 10


def test_an_unknown_novel_class_is_named(arguments):
    with pytest.raises(DataError, match="did you mean 'hen'"):
        main([*arguments, "--novel", "hens"])


@pytest.mark.parametrize("remove", ["folder", "pictures"])
def test_nothing_is_written_without_pictures(arguments, tmp_path, remove):
    for picture in (tmp_path / "photos").iterdir():
        picture.unlink()
    if remove == "folder":
        (tmp_path / "photos").rmdir()
    with pytest.raises(DataError, match="photos"):
        main(arguments)
    assert not (tmp_path / "my").exists()


@pytest.mark.parametrize(
    "case, message",
    [
        ("04-categories-without-name", r"categories\[0\], category 1: there is no 'name'"),
        ("11-text-image-ids", "'id' is 'frame_1'"),
        ("07-null-inside-a-box", "annotation 1 of image 1: 'bbox' is"),
    ],
)
def test_files_of_other_tools_are_refused_before_writing(case, message, tmp_path):
    folder = FIXTURES / "cases"
    files = ["--annotations", folder / case / "annotations.json", "--images", folder / "images", "--output", tmp_path]
    with pytest.raises(DataError, match=message):
        main(["x", *map(str, files)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["50-project-named-like-a-class", "01-images-without-size", "28-image-ids-as-digits"])
def test_what_was_repaired_is_written_repaired(case, tmp_path, caplog):
    folder = FIXTURES / "cases"
    files = ["--annotations", folder / case / "annotations.json", "--images", folder / "images", "--output", tmp_path]
    main(["x", *map(str, files), "--val", "0.5"])
    caplog.clear()
    names = register_from_yaml(tmp_path / "x.yaml")
    assert dataset_vocabulary(names[0]) == Vocabulary(["red box", "green ball"])
    records = [record for name in names for record in DatasetCatalog.get(name)]
    assert sorted(record["image_id"] for record in records) == [1, 2]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all((record["height"], record["width"]) == (72, 96) for record in records)


@pytest.fixture
def street(tmp_path):
    """Five pictures; label files, and the same as instances and as panoptic annotations."""
    names = ["sky", "road", "tree"]
    rng = np.random.default_rng(0)
    images, instances, panoptic = [], [], []
    (tmp_path / "masks").mkdir()
    for i in range(5):
        labels = rng.integers(0, 3, (4, 6)).astype(np.uint8)
        labels[0] = 255
        write_labels(tmp_path / f"labels/{i}.png", labels)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / f"photos/{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6})
        segments, ids = [], np.zeros((4, 6, 3), np.uint8)
        for k in np.unique(labels[1:]).tolist():
            mask = mask_util.encode(np.asfortranarray(labels == k))
            counts = {"size": [4, 6], "counts": mask["counts"].decode()}
            instances.append(
                {
                    "id": len(instances),
                    "image_id": i,
                    "category_id": k + 3,
                    "segmentation": counts,
                    "bbox": [0, 0, 6, 4],
                }
            )
            ids[..., 0][labels == k] = k + 1
            segments.append({"id": k + 1, "category_id": k + 3, "bbox": [0, 0, 6, 4]})
        Image.fromarray(ids).save(tmp_path / f"masks/{i}.png")
        panoptic.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    categories = [{"id": k + 3, "name": name} for k, name in enumerate(names)]
    for name, annotations in (("instances", instances), ("panoptic", panoptic)):
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "names.txt").write_text("\n".join(names))
    return tmp_path


@pytest.mark.parametrize(
    "source",
    [
        "--labels labels --classes sky,road,tree",
        "--labels labels --classes names.txt",
        "--panoptic panoptic.json --masks masks",
        "--instances instances.json",
    ],
)
def test_semantic_sets_from_label_files_and_coco(source, street, monkeypatch):
    monkeypatch.chdir(street)
    main(["street", *source.split(), "--images", "photos", "--output", "my", "--val", "0.4", "--novel", "road"])
    assert register_from_yaml("my/street.yaml") == ("street_train", "street_val")
    train, val = (DatasetCatalog.get(f"street_{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 2)
    assert {record["image_id"] for record in (*train, *val)} == set("01234")
    for record in (*train, *val):
        expected = read_labels(f"labels/{record['image_id']}.png")
        assert np.array_equal(read_labels(record["sem_seg_file_name"]), expected)
    assert dataset_vocabulary("street_val") == Vocabulary(["sky", "road", "tree"], novel=["road"])
    assert dataset_vocabulary("street_train", training=True) == Vocabulary(["sky", "tree"])
    with pytest.raises(DataError, match=r"street_val has files .* \(1 in all\): remove the folder"):
        main(["street", *source.split(), "--images", "photos", "--output", "my", "--val", "0.2"])


def test_background_and_a_set_to_evaluate_on_alone(street, monkeypatch):
    monkeypatch.chdir(street)
    main("street --instances instances.json --background --images photos --output my --val 1".split())
    assert register_from_yaml("my/street.yaml") == ("street_val",)
    labels = read_labels("my/street_val/0.png")
    assert (labels[0] == 0).all() and np.array_equal(labels[1:], read_labels("labels/0.png")[1:] + 1)
    assert MetadataCatalog.get("street_val").stuff_classes == ["background", "sky", "road", "tree"]


@pytest.mark.parametrize(
    "given, message",
    [
        ("--labels labels", "--labels needs --classes"),
        ("--labels photos --classes a", "has no label files"),
        ("--panoptic panoptic.json", "--panoptic needs --masks"),
        ("--labels labels --classes sky,road --background", "--background belongs to --instances"),
        ("--labels labels --classes sky,road,tree --novel moon", "moon"),
        ("--labels labels --classes sky,road,tree --ignore 1", "ignore"),
        ("--annotations instances.json --classes a", "are for segmentation"),
    ],
)
def test_semantic_mistakes_are_explained(given, message, street, monkeypatch):
    monkeypatch.chdir(street)
    with pytest.raises(DenseRCError, match=message):
        main(["street", *given.split(), "--images", "photos", "--output", "my"])
