"""Masks painted into label maps: run lengths are checked before C code reads them, .mat files when they are read."""

import json
import math

import numpy as np
import pytest

from denserc.data.datasets.semantic_files import LabelJob, instance_jobs, label_path, write_label_files
from denserc.data.datasets.semantic_masks import MergedContext, decode_mask, read_label_map
from denserc.structures import DataError


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [2, 3], "counts": [6]},  # of another size
        {"size": [3, 2], "counts": [5]},
        {"size": [3, 2], "counts": [4, 4]},
        {"size": [3, 2], "counts": [-1, 7]},
        {"size": [3, 2], "counts": "~~~"},
        {"size": [3, 2], "counts": None},
        {"size": [3, 2]},
        {"counts": [6]},
        {},
    ],
)
def test_run_lengths_that_do_not_fit_are_refused(mask):
    with pytest.raises(DataError, match="A mask is not usable"):
        decode_mask(mask, (3, 2))


@pytest.fixture
def merged() -> dict:
    return {
        "images": [{"image_id": 5, "file_name": "a.jpg", "height": 2, "width": 3, "phase": "val"}],
        "annos_segmentation": [
            {"image_id": 5, "category_id": 2, "segmentation": {"size": [2, 3], "counts": [3, 1, 2]}},
            {"image_id": 9, "category_id": 2},  # of training
        ],
    }


def written(tmp_path, content):
    path = tmp_path / "trainval_merged.json"
    path.write_text(json.dumps(content))
    return path


def test_merged_masks_are_painted(tmp_path, merged):
    context = MergedContext(written(tmp_path, merged))
    assert context.names == ["a"] and context.labels("a").tolist() == [[0, 0, 0], [0, 2, 0]]


NO_NUMBERS = (None, "x", True, 1.5, math.nan, math.inf, [], 10**400)


@pytest.mark.parametrize(
    ("kind", "field", "new"),
    [
        *[("images", side, new) for side in ("height", "width") for new in (*NO_NUMBERS, 0, -2, 10**7)],
        *[("images", "image_id", new) for new in NO_NUMBERS],
        *[("images", "file_name", new) for new in (None, 3, [], "")],
        *[("annos_segmentation", "image_id", new) for new in NO_NUMBERS],
        *[("annos_segmentation", "category_id", new) for new in (*NO_NUMBERS, -1, 460)],
        *[("annos_segmentation", "segmentation", new) for new in (None, 3, [], "x", {}, {"size": [2, 3]})],
        ("annos_segmentation", "segmentation", {"size": [2, 3], "counts": [7]}),
        ("annos_segmentation", "segmentation", {"size": [3, 2], "counts": [6]}),
    ],
)
def test_damaged_merged_entries_are_named(tmp_path, merged, kind, field, new):
    merged[kind][0][field] = new
    with pytest.raises(DataError) as raised:
        MergedContext(written(tmp_path, merged))
    assert f"trainval_merged.json, {kind}[0]" in str(raised.value) and f"'{field}'" in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 200, b"MATLAB 5.0 MAT-file" + b" " * 105 + b"\x00\x01IM" + b"\xff" * 64]
)
def test_damaged_mat_files_are_named(tmp_path, content):
    pytest.importorskip("scipy.io")
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat"):
        read_label_map(tmp_path / "a.mat")


@pytest.mark.parametrize("labels", ["text", np.zeros((2, 2, 2), np.uint16), np.zeros((2, 2)), np.array([[1j]])])
def test_mat_files_of_another_form_are_named(tmp_path, labels):
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"LabelMap": labels})
    with pytest.raises(DataError, match=r"a\.mat: LabelMap is"):
        read_label_map(tmp_path / "a.mat")


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", ".."])
def test_labels_stay_inside_their_folder(tmp_path, name):
    with pytest.raises(DataError, match="leads out of the folder"):
        label_path(tmp_path, name, ".png")
    assert label_path(tmp_path, "a/b.c.jpg", ".png") == tmp_path / "a" / "b.c.png"


def test_an_error_leaves_no_label_file(tmp_path):
    def damaged():
        raise DataError("damaged")

    jobs = [LabelJob(tmp_path / f"{i}.png", lambda: np.zeros((2, 2), np.uint8)) for i in range(3)]
    with pytest.raises(DataError, match="damaged"):
        write_label_files([*jobs, LabelJob(tmp_path / "4.png", damaged)], expected=None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="belong to several images"):
        write_label_files([*jobs, jobs[0]], expected=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [[[math.nan, 0, 2, 0, 2, 2]], {"size": [2, 3], "counts": [9]}, "x", 3, {"size": 3}])
def test_damaged_masks_of_instances_are_refused(tmp_path, mask):
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [{"image_id": 5, "category_id": 1, "segmentation": mask}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    with pytest.raises(DataError, match=r"trainval_merged\.json, annotations\[0\]"):
        instance_jobs(written(tmp_path, content), tmp_path / "out", 255, background=False)
