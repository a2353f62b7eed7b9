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
        "segmentation": {"counts": [0, 4], "size": [2, 2]} if crowd else [[0, 0, 10, 0, 10, 20]],
    }


# person 1, horse 19, train 7, cat 17, dog 18, toaster 80 (outside the split)
COCO = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": 40, "file_name": "d.jpg", "height": 30, "width": 50},  # a toaster alone
        {"id": 10, "file_name": "a.jpg", "height": 30, "width": 50},  # person, cat
        {"id": 20, "file_name": "b.jpg", "height": 30, "width": 50},  # dog alone
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


@pytest.fixture
def coco() -> dict:
    return copy.deepcopy(COCO)


@pytest.fixture
def base() -> tuple[str, ...]:
    return BASE


@pytest.fixture
def novel() -> tuple[str, ...]:
    return NOVEL


@pytest.fixture
def forget_registered():
    """Leaves Detectron2's catalogs as they were."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
