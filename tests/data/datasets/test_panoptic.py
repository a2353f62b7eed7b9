"""Panoptic annotations: labels by category id, boxes and masks in the image's frame, PNGs read one by one."""

import copy
import json
import math

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from denserc.data.datasets.panoptic import PanopticRegions, read_segment_ids, register_panoptic_regions
from denserc.structures import DataError
from tests.paths import FIXTURES

IDS = np.zeros((6, 8), dtype=np.int64)  # (h, w)
IDS[1:4, 2:5] = 300  # a thing: needs a second byte
IDS[4:, :] = 70_000  # stuff: needs a third byte


@pytest.fixture
def files(tmp_path):
    """(json, png folder, image folder) of one image; categories out of order."""
    folder = tmp_path / "panoptic_val2017"
    folder.mkdir()
    Image.fromarray(np.stack([IDS % 256, IDS // 256 % 256, IDS // 65536], axis=-1).astype(np.uint8)).save(
        folder / "000000000007.png"
    )
    content = {
        "images": [{"id": 7, "file_name": "000000000007.jpg", "height": 6, "width": 8}],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "000000000007.png",
                "segments_info": [
                    {"id": 70_000, "category_id": 125, "iscrowd": 0, "bbox": [0, 4, 8, 2], "area": 16},
                    {"id": 300, "category_id": 18, "iscrowd": 1, "bbox": [2, 1, 3, 3], "area": 9},
                ],
            }
        ],
        "categories": [
            {"id": 125, "name": "gravel", "isthing": 0},
            {"id": 18, "name": "dog", "isthing": 1},
            {"id": 1, "name": "person", "isthing": 1},
        ],
    }
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(content))
    return path, folder, tmp_path / "val2017"


def test_segments_have_label_kind_box_and_mask(files):
    regions = PanopticRegions(*files)
    assert regions.classes == ("person", "dog", "gravel") and regions.is_thing == (True, True, False)
    (entry,) = regions
    assert entry["file_name"] == str(files[2] / "000000000007.jpg")
    gravel, dog = entry["segments"]
    assert (gravel["label"], gravel["isthing"], gravel["iscrowd"]) == (2, False, False)
    assert (dog["label"], dog["isthing"], dog["iscrowd"]) == (1, True, True)
    assert dog["bbox"] == (2.0, 1.0, 5.0, 4.0)
    assert np.array_equal(dog["mask"], IDS == 300) and np.array_equal(gravel["mask"], IDS == 70_000)


def test_pngs_are_read_when_asked_for(files):
    (files[1] / "000000000007.png").unlink()
    regions = PanopticRegions(*files)
    assert len(regions) == 1
    with pytest.raises(DataError, match="000000000007.png does not exist"):
        regions[0]


def test_a_png_of_another_size_is_refused(files):
    Image.new("RGB", (6, 8)).save(files[1] / "000000000007.png")
    with pytest.raises(DataError, match=r"\(8, 6\) \(h, w\).*\(6, 8\)"):
        PanopticRegions(*files)[0]


def test_unknown_category_is_refused(files):
    content = json.loads(files[0].read_text())
    content["categories"].pop(0)
    files[0].write_text(json.dumps(content))
    with pytest.raises(DataError, match="category_id.* is 125; expected is the id of a category"):
        PanopticRegions(*files)[0]


def test_segment_ids_use_three_bytes(files):
    assert np.array_equal(read_segment_ids(files[1] / "000000000007.png"), IDS)


@pytest.mark.usefixtures("forget_registered")
def test_registered_regions_stay_lazy_and_find_either_folder(files):
    register_panoptic_regions("regions", files[0], [files[1].parent / "elsewhere", files[1]], files[2])
    regions = DatasetCatalog.get("regions")
    assert isinstance(regions, PanopticRegions) and len(regions[0]["segments"]) == 2


def _changed(value, path, new):
    """Nested JSON with one place replaced; ... removes it."""
    if not path:
        return new
    result = copy.copy(value)
    if len(path) == 1 and new is ...:
        del result[path[0]]
    else:
        result[path[0]] = _changed(value[path[0]], path[1:], new)
    return result


NO_NUMBERS = [None, "x", True, 1.5, math.nan, math.inf, [], {}, 10**400]
WRONG_SIDES = [new for new in NO_NUMBERS if new != 1.5]
ANNOTATION, SEGMENT = ("annotations", 0), ("annotations", 0, "segments_info", 0)
DAMAGE = [
    *[((*SEGMENT, "id"), new) for new in [*NO_NUMBERS, 0, -1, 256**3, 300]],
    *[((*SEGMENT, "category_id"), new) for new in [*NO_NUMBERS, 2]],
    *[((*SEGMENT, "bbox"), new) for new in [*NO_NUMBERS, [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, None], "1234"]],
    *[((*SEGMENT, "bbox", side), new) for side in range(4) for new in [*WRONG_SIDES, 1e7, "3"]],
    *[((*SEGMENT, "bbox", side), -1) for side in (2, 3)],
    *[((*SEGMENT, "iscrowd"), new) for new in (2, "0", [], None, -1)],
    *[((*ANNOTATION, "image_id"), new) for new in [*NO_NUMBERS, 8]],
    *[((*ANNOTATION, "file_name"), new) for new in (None, 3, [], {}, True)],
    *[((*ANNOTATION, "segments_info"), new) for new in (None, 3, {}, "x", [3], [None], [[]])],
    *[(("images", 0, side), new) for side in ("height", "width") for new in [*NO_NUMBERS, 0, -6, 10**8]],
    *[(("images", 0, "id"), new) for new in NO_NUMBERS],
    *[(("images", 0, "file_name"), new) for new in (3, [], {}, "a\0b", "\ud800")],
    *[(("categories", 0, "id"), new) for new in [*NO_NUMBERS, 18]],
    *[(("categories", 0, "name"), new) for new in (None, 3, "", [], {}, "\ud800")],
    *[(("categories", 0, "isthing"), new) for new in (2, "1", [], None)],
    *[((kind,), new) for kind in ("images", "annotations", "categories") for new in (None, 3, {}, "x", [3], [[]])],
    *[((*SEGMENT, key), ...) for key in ("id", "category_id", "bbox")],
    *[((*ANNOTATION, key), ...) for key in ("image_id", "file_name", "segments_info")],
    *[(("images", 0, key), ...) for key in ("id", "height", "width")],
    *[(("categories", 0, key), ...) for key in ("id", "name")],
]


@pytest.mark.parametrize(("path", "new"), DAMAGE, ids=lambda value: repr(value)[:40])
def test_damaged_fields_are_named_when_opened(files, path, new):
    content = _changed(json.loads(files[0].read_text()), path, new)
    files[0].write_text(json.dumps(content))
    with pytest.raises(DataError) as raised:
        PanopticRegions(*files)
    text = str(raised.value)
    assert "panoptic.json" in text and str([part for part in path if isinstance(part, str)][-1]) in text


def test_absent_flags_and_whole_fractions_are_harmless(files):
    content = json.loads(files[0].read_text())
    expected = PanopticRegions(*files)[0]["segments"]
    del content["annotations"][0]["segments_info"][0]["iscrowd"], content["categories"][1]["isthing"]
    content["annotations"][0]["segments_info"][0]["id"] = 70000.0
    content["images"][0]["id"] = "7"
    files[0].write_text(json.dumps(content))
    for found, one in zip(PanopticRegions(*files)[0]["segments"], expected, strict=True):
        assert np.array_equal(found.pop("mask"), one.pop("mask")) and found == one


def test_boxes_of_five_numbers_are_refused():
    file = FIXTURES / "cases" / "fuzz-18-panoptic-box-of-five" / "panoptic.json"
    with pytest.raises(DataError, match=r"panoptic\.json, annotations\[0\], segments_info\[0\]: 'bbox' is \[1, 2"):
        PanopticRegions(file, file.parent, file.parent)


def test_pngs_too_large_are_not_decoded(files):
    bomb = FIXTURES / "cases" / "fuzz-19-panoptic-png-too-large" / "1.png"
    with pytest.raises(DataError, match=r"1\.png is 65535 x 65535"):
        read_segment_ids(bomb)
    png = files[1] / "000000000007.png"
    Image.new("L", (9000, 9000)).save(png)
    png.write_bytes(png.read_bytes()[:60])  # only the header is left
    with pytest.raises(DataError, match=r"000000000007\.png is \(9000, 9000\)"):
        PanopticRegions(*files)[0]
