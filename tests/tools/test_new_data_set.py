"""A COCO file becomes a described set that can be registered."""

import json

import pytest
from detectron2.data import DatasetCatalog

from denserc.commands.dataset_new import main
from denserc.data import dataset_vocabulary, register_from_yaml
from denserc.structures import DataError, Vocabulary

pytestmark = pytest.mark.usefixtures("forget_registered")


@pytest.fixture
def arguments(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": 9, "width": 9} for i in range(10)]
    boxes = [{"id": i, "image_id": i, "category_id": i % 3, "bbox": [1, 1, 4, 4], "area": 16} for i in range(10)]
    categories = [{"id": 2, "name": "tea pot"}, {"id": 0, "name": "no"}, {"id": 1, "name": "hen "}]
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
