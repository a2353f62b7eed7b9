"""Lists of sources, mixed; each file once."""

import json
import logging

import pytest
from detectron2.data import DatasetCatalog

from denserc.config import read_config
from denserc.distillation.build import build_dataset
from denserc.distillation.data.sources import collect_images, source_images
from denserc.structures import ConfigurationError, DataError
from tests.paths import CONFIGS

CONFIGS = CONFIGS / "distill"


@pytest.fixture()
def layouts(image_folder, tmp_path):
    """The ten images also as COCO's, VOC's and ADE20K's, partly the same files."""
    listed = [{"id": 100 + i, "file_name": f"{i}.png"} for i in (7, 3)]
    (tmp_path / "a.json").write_text(json.dumps({"images": listed}))
    voc, ade = tmp_path / "VOC2012", tmp_path / "ADE@2016"
    for folder in (voc / "JPEGImages", voc / "ImageSets/Segmentation", ade / "images/training"):
        folder.mkdir(parents=True)
    for name in ("2007_1", "2007_2"):
        (voc / f"JPEGImages/{name}.jpg").write_bytes(b"voc")
    (voc / "ImageSets/Segmentation/train.txt").write_text("2007_2\n")
    (voc / "one.txt").write_text("2007_1\n")
    (ade / "images/training/ADE_1.jpg").write_bytes(b"ade")
    return tmp_path


def ids(source):
    return [record.image_id for record in source_images(source)]


def test_every_kind_is_written_kind_where(layouts, image_folder):
    assert ids(f"coco_json:{layouts}/a.json@{image_folder}") == [107, 103]
    assert ids(f"voc:{layouts}/VOC2012") == ["2007_2"]
    assert ids(f"voc:{layouts}/VOC2012@one.txt") == ["2007_1"]
    assert ids(f"ade20k:{layouts}/ADE@2016@") == ["ADE_1"]
    assert len(ids(f"folder:{image_folder}")) == 10
    DatasetCatalog.register("sources_test_set", lambda: [{"file_name": "a.jpg", "image_id": 5}])
    try:
        assert ids("dataset:sources_test_set") == [5]
    finally:
        DatasetCatalog.remove("sources_test_set")


def test_mixed_sources_hold_each_file_once_however_it_is_spelled(layouts, image_folder, caplog):
    (layouts / "link").symlink_to(image_folder)
    sources = [
        f"coco_json:{layouts}/a.json@{layouts}/link",
        f"folder:{image_folder}/../images",
        f"voc:{layouts}/VOC2012",
    ]
    with caplog.at_level(logging.INFO):
        found = collect_images([], sources)
    assert [r.image_id for r in found[:2]] == [107, 103] and found[-1].image_id == "2007_2"
    assert len(found) == 11
    assert [m.split(": ", 1)[1] for m in caplog.messages] == [
        f"{a} images, {b} of them not in the sources before." for a, b in ((2, 2), (10, 8), (1, 1))
    ]


def test_the_config_takes_them(layouts, image_folder, make_cfg, miniature):
    cfg = make_cfg("DISTILL.SOURCES", (f"coco_json:{layouts}/a.json@{image_folder}",))
    assert len(build_dataset(cfg, miniature.image, None, seed=0).records) == 2


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("datasets/coco", ConfigurationError, "KIND:WHERE.*'folder', 'dataset', 'coco_json', 'voc', 'ade20k'"),
        ("folder:", ConfigurationError, "KIND:WHERE"),
        ("lmdb:x", ConfigurationError, "'lmdb'; legal are 'folder'"),
        ("coco_json:a.json", ConfigurationError, "coco_json:FILE@IMAGE_ROOT"),
        ("dataset:no_such_set", DataError, "no_such_set"),
        ("voc:nowhere", DataError, "nowhere"),
        ("ade20k:nowhere", DataError, "nowhere/images/training"),
    ],
)
def test_what_is_wrong_is_said(source, error, message):
    with pytest.raises(error, match=message):
        collect_images([], [source])


@pytest.mark.parametrize(("name", "images"), [("", 118287), ("_voc", 1464), ("_ade20k", 20210)])
def test_the_configs_schedules_are_six_epochs(name, images):
    cfg = read_config(CONFIGS / f"denserc_vitb16{name}.yaml")
    assert cfg.SOLVER.MAX_ITER == round(6 * images / cfg.SOLVER.IMS_PER_BATCH)
    assert cfg.SOLVER.WARMUP_ITERS == round(1000 * cfg.SOLVER.MAX_ITER / 44358)
