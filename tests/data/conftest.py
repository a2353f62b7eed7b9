"""A COCO instances file small enough to count by hand, in an order that no code may rely on."""

import copy

import pytest

BASE = ("person", "horse", "train")
NOVEL = ("cat", "dog")


def _annotation(number: int, image: int, category: int, crowd: int = 0) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [number, 2.0, 10.0, 20.0],
        "area": 200.0,
        "iscrowd": crowd,
        "segmentation": {"counts": [0, 1500], "size": [30, 50]} if crowd else [[0, 0, 10, 0, 10, 20]],
    }


# person 1, horse 19, train 7, cat 17, dog 18, toaster 80 (outside the split)
COCO = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": 40, "file_name": "d.jpg", "height": 30, "width": 50},  # only a toaster
        {"id": 10, "file_name": "a.jpg", "height": 30, "width": 50},  # person, cat
        {"id": 20, "file_name": "b.jpg", "height": 30, "width": 50},  # only a dog
        {"id": 30, "file_name": "c.jpg", "height": 30, "width": 50},  # a crowd of persons, horse
        {"id": 50, "file_name": "e.jpg", "height": 30, "width": 50},  # nothing
    ],
    "annotations": [
        _annotation(5, 40, 80),
        _annotation(1, 10, 1),
        _annotation(2, 10, 17),
        _annotation(3, 20, 18),
        _annotation(4, 30, 1, crowd=1),
        _annotation(6, 30, 19),
    ],
    "categories": [
        {"id": 18, "name": "dog"},
        {"id": 80, "name": "toaster"},
        {"id": 1, "name": "person"},
        {"id": 17, "name": "cat"},
        {"id": 7, "name": "train"},
        {"id": 19, "name": "horse"},
    ],
}


def objects365_file(names, misspelt=()) -> dict:
    """An Objects365 file of one image, its categories in an order of its own, one box of the fifth class."""
    misspelt, order = dict(misspelt), [*range(3, len(names)), 2, 0, 1]
    return {
        "images": [{"id": 7, "file_name": "images/v1/patch3/b.jpg", "height": 30, "width": 50}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [1.5, 2, 3, 4], "area": 12, "iscrowd": 0}],
        "categories": [{"id": i + 1, "name": misspelt.get(names[i], names[i])} for i in order],
    }


_VOC_XML = """<annotation><size><width>50</width><height>30</height></size>{}</annotation>"""
_VOC_OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax>
<ymax>30</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"""


@pytest.fixture
def objects365():
    return objects365_file


@pytest.fixture
def voc(tmp_path):
    """A data root with a VOC2007 of two test images: a dining table; a dog, and another that is difficult."""
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("000001\n000004\n")
    for name, objects in (("000001", [("diningtable", 0)]), ("000004", [("dog", 0), ("dog", 1)])):
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(b"")
        text = _VOC_XML.format("".join(_VOC_OBJECT.format(*one) for one in objects))
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    return tmp_path


@pytest.fixture
def coco() -> dict:
    return copy.deepcopy(COCO)


@pytest.fixture
def base() -> tuple[str, ...]:
    return BASE


@pytest.fixture
def novel() -> tuple[str, ...]:
    return NOVEL
