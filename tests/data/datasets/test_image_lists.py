"""The published layouts, found without opening an image."""

import json

import pytest

from denserc.data.datasets.image_lists import (
    ade20k_list,
    coco_list,
    folder_list,
    image_path,
    voc_list,
)
from denserc.structures import DataError


@pytest.fixture()
def touch(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return make


def short(pairs, root):
    return [(path.removeprefix(f"{root}/"), image_id) for path, image_id in pairs]


def test_folder(touch):
    root = touch("b/2.PNG", "a.jpg", "b/1.webp", "notes.txt")
    assert short(folder_list(root), root) == [(n, f"{root}/{n}") for n in ("a.jpg", "b/1.webp", "b/2.PNG")]
    with pytest.raises(DataError, match="not a folder"):
        folder_list(root / "absent")


def test_hidden_files_and_folders_are_no_images(touch):
    root = touch("a.jpg", "._a.jpg", ".DS_Store", ".thumbnails/a.jpg", "__MACOSX/._a.jpg", "b/.b.png", "b/c.png")
    assert short(folder_list(root), root) == [(n, f"{root}/{n}") for n in ("a.jpg", "b/c.png")]
    assert short(folder_list(root / ".thumbnails"), root) == [(".thumbnails/a.jpg", f"{root}/.thumbnails/a.jpg")]
    with pytest.raises(DataError, match="No image below"):
        folder_list(root / "__MACOSX")


def test_coco_and_lvis_files(touch):
    root = touch("val2017/1.jpg", "train2017/2.jpg")
    url = "http://images.cocodataset.org/train2017/2.jpg"
    (root / "a.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "val2017/1.jpg"}, {"id": 7, "coco_url": url}]})
    )
    assert short(coco_list(root / "a.json", root), root) == [("val2017/1.jpg", 1), ("train2017/2.jpg", 7)]
    with pytest.raises(DataError, match="2 of 2 images looked for do not exist, the first .*val2017/val2017/1.jpg"):
        coco_list(root / "a.json", root / "val2017")
    (root / "b.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="lists no images"):
        coco_list(root / "b.json", root)
    (root / "c.json").write_text("[]")
    with pytest.raises(DataError, match="lacks"):
        coco_list(root / "c.json", root)
    with pytest.raises(DataError, match="does not exist"):
        coco_list(root / "absent.json", root)


def test_voc(touch):
    root = touch("JPEGImages/2007_1.jpg", "JPEGImages/2007_2.jpg", "ImageSets/Main/cat_train.txt")
    (root / "ImageSets/Segmentation").mkdir()
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_1\n2007_2\n\n")
    (root / "ImageSets/Main/cat_train.txt").write_text("2007_2 -1\n")
    assert short(voc_list(root), root) == [("JPEGImages/2007_1.jpg", "2007_1"), ("JPEGImages/2007_2.jpg", "2007_2")]
    assert [i for _, i in voc_list(root, "ImageSets/Main/cat_train.txt")] == ["2007_2"]
    (root / "ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(DataError, match="names no image"):
        voc_list(root)
    with pytest.raises(DataError, match="JPEGImages and ImageSets"):
        voc_list(root / "JPEGImages")
    (root / "ImageSets/Segmentation/train.txt").write_text("2008_1\n2007_2\n2008_2\n")
    with pytest.raises(DataError, match="2 of 3 images looked for do not exist"):
        voc_list(root)


def test_ade20k(touch):
    root = touch("images/training/ADE_train_1.jpg", "images/validation/ADE_val_1.jpg")
    assert short(ade20k_list(root), root) == [("images/training/ADE_train_1.jpg", "ADE_train_1")]
    assert [i for _, i in ade20k_list(root, "images/validation")] == ["ADE_val_1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train\\\\a.jpg", "with Windows' backslashes; write / for"),
        ("C:\\\\photos\\\\a.jpg", "with Windows' backslashes"),
        ("http://example.com/a.jpg", "an address; download the images"),
        ("s3://bucket/a.jpg", "an address"),
        ("file:///photos/a.jpg", "an address"),
        ("/data/upload/3/5b1f-a.jpg", "a path of Label Studio"),
        ("/data/local-files/?d=photos/a.jpg", "a path of Label Studio"),
        (3, "3; expected is the path"),
        (None, "None; expected is the path"),
        (["a.jpg"], "expected is the path"),
        ("a\0.jpg", "expected is the path"),
    ],
)
def test_what_is_no_path_below_a_folder_names_the_image(tmp_path, name, message):
    with pytest.raises(DataError, match=rf"Image 7: 'file_name' is .*{message}.* The image folder is {tmp_path}"):
        image_path({"id": 7, "file_name": name}, tmp_path)


def test_a_file_may_have_a_backslash_in_its_name(tmp_path):
    (tmp_path / "a\\b.jpg").touch()
    assert image_path({"id": 1, "file_name": "a\\b.jpg"}, tmp_path).is_file()
    assert image_path({"id": 1, "file_name": "../c d/e.jpg"}, tmp_path) == tmp_path / "../c d/e.jpg"
