"""Panoptic annotations: labels by category id, boxes and masks in the image's frame, PNGs read one by one."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from denserc.data.datasets.panoptic import PanopticRegions, read_segment_ids, register_panoptic_regions
from denserc.structures import DataError

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
    with pytest.raises(DataError, match="000000000007.png cannot be read"):
        regions[0]


def test_a_png_of_another_size_is_refused(files):
    Image.new("RGB", (6, 8)).save(files[1] / "000000000007.png")
    with pytest.raises(DataError, match=r"\(8, 6\) \(h, w\).*\(6, 8\)"):
        PanopticRegions(*files)[0]


def test_unknown_category_is_refused(files):
    content = json.loads(files[0].read_text())
    content["categories"].pop(0)
    files[0].write_text(json.dumps(content))
    with pytest.raises(DataError, match="no category 125"):
        PanopticRegions(*files)[0]


def test_segment_ids_use_three_bytes(files):
    assert np.array_equal(read_segment_ids(files[1] / "000000000007.png"), IDS)


@pytest.mark.usefixtures("forget_registered")
def test_registered_regions_stay_lazy_and_find_either_folder(files):
    register_panoptic_regions("regions", files[0], [files[1].parent / "elsewhere", files[1]], files[2])
    regions = DatasetCatalog.get("regions")
    assert isinstance(regions, PanopticRegions) and len(regions[0]["segments"]) == 2
