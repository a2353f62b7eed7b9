"""Objects365 and VOC as annotation files: names put right, ids and boxes kept, difficult objects ignored."""

import json

import pytest

from denserc.data.datasets.transfer import objects365_names, voc_annotations, write_objects365, write_voc
from denserc.data.vocabulary.published import objects365_v2_misspelt, vocabulary
from denserc.structures import DataError

V1, V2 = vocabulary("objects365_v1"), vocabulary("objects365_v2")


def test_official_spellings_become_the_vocabularys(objects365):
    official = [name.replace(" / ", "/") for name in V1.names]  # the official file has "cabinet/shelf" and "tissue "
    content = objects365_names(objects365(official), V1)
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(enumerate(V1.names, 1))
    content = objects365_names(objects365(V2.names, objects365_v2_misspelt()), V2, objects365_v2_misspelt())
    assert [c["name"] for c in content["categories"]] == list(V2.names)


def test_order_of_the_categories_changes_no_label(objects365):
    first = objects365(V1.names)
    second = {**first, "categories": first["categories"][::-1]}
    assert objects365_names(first, V1) == objects365_names(second, V1)


def test_the_other_version_is_refused(objects365):
    with pytest.raises(DataError, match="other version"):
        objects365_names(objects365(V2.names), V1)
    with pytest.raises(DataError, match="Bakset"):
        objects365_names(objects365(V2.names, objects365_v2_misspelt()), V2)


@pytest.mark.parametrize("place, name", [("images/v1/patch3", "images/v1/patch3/b.jpg"), ("patch3", "patch3/b.jpg")])
def test_images_are_named_as_they_lie(objects365, tmp_path, place, name):
    (tmp_path / "val" / place).mkdir(parents=True)
    (tmp_path / "val" / place / "b.jpg").write_bytes(b"")
    (tmp_path / "in.json").write_text(json.dumps(objects365(V1.names)))
    write_objects365(tmp_path / "out.json", tmp_path / "in.json", V1, image_root=tmp_path / "val")
    assert json.loads((tmp_path / "out.json").read_text())["images"][0]["file_name"] == name


def test_voc_boxes_count_from_zero_and_difficult_is_a_crowd(voc):
    content = voc_annotations(voc / "VOCdevkit" / "VOC2007", "test", vocabulary("voc").names)
    assert [image["id"] for image in content["images"]] == [1, 4]
    assert content["images"][0] == {"id": 1, "file_name": "000001.jpg", "height": 30, "width": 50}
    table, dog, difficult = content["annotations"]
    assert table["bbox"] == [0, 2, 10, 28]  # corners 1, 3 and 10, 30, both inside
    assert vocabulary("voc").names[table["category_id"] - 1] == "dining table"
    assert (dog["iscrowd"], difficult["iscrowd"]) == (0, 1)
    assert [c["id"] for c in content["categories"]] == list(range(1, 21))


def test_ids_of_later_years_are_whole_numbers(voc):
    folder = voc / "VOCdevkit" / "VOC2007"
    for part, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (folder / part / f"000001.{suffix}").rename(folder / part / f"2008_000001.{suffix}")
    (folder / "ImageSets" / "Main" / "test.txt").write_text("2008_000001\n")
    assert voc_annotations(folder, "test", vocabulary("voc").names)["images"][0]["id"] == 2008000001


def test_unexpected_counts_write_nothing(voc, tmp_path):
    with pytest.raises(DataError, match="2 images, but 4,952 were expected"):
        write_voc(
            tmp_path / "out.json", voc / "VOCdevkit" / "VOC2007", "test", vocabulary("voc").names, expected_images=4952
        )
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "old, new, message", [("dog", "wolf", "wolf"), ("<width>50</width>", "", "size/width"), ("</size>", "", "000004")]
)
def test_a_damaged_annotation_is_named(voc, old, new, message):
    path = voc / "VOCdevkit" / "VOC2007" / "Annotations" / "000004.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        voc_annotations(voc / "VOCdevkit" / "VOC2007", "test", vocabulary("voc").names)
