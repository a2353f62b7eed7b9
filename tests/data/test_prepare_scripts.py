"""The scripts in datasets/, run as a user runs them."""

import contextlib
import io
import json
import runpy
import sys
from types import SimpleNamespace

import pytest

from denserc.data.vocabulary.published import objects365_v2_misspelt, vocabulary
from tests.paths import ROOT

DATASETS = ROOT / "datasets"


def run(script: str, *arguments: object) -> SimpleNamespace:
    """The script as `python script arguments`, in this process: starting one takes longer than what it does."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [script, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(DATASETS / script), run_name="__main__")
        code = 0
    except SystemExit as end:  # a text goes to stderr, and the status is 1
        code = end.code if isinstance(end.code, int) else 1
        err.write("" if isinstance(end.code, int) else str(end.code))
    finally:
        sys.argv = before
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture
def root(coco, tmp_path):
    """A data root with the same tiny file as COCO's train and val, and as LVIS's train; class lists beside it."""
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        (folder / f"instances_{split}2017.json").write_text(json.dumps(coco))
    for category in coco["categories"]:
        category["frequency"] = "r" if category["name"] == "dog" else "c"
    (tmp_path / "lvis").mkdir()
    (tmp_path / "lvis" / "lvis_v1_train.json").write_text(json.dumps(coco))
    return tmp_path


@pytest.fixture
def lists(base, novel, tmp_path):
    for name, names in (("base", base), ("novel", novel)):
        (tmp_path / f"{name}.txt").write_text("\n".join(names))
    return "--base", tmp_path / "base.txt", "--novel", tmp_path / "novel.txt"


def test_ov_coco_files_and_counts(root, lists):
    done = run("prepare_ov_coco.py", "--root", root, *lists)
    assert done.returncode == 0, done.stderr
    assert "3 base and 2 novel classes" in done.stdout
    assert "2 images, 3 annotations (1 crowds)" in done.stdout and "0 annotations of novel classes" in done.stdout
    assert "3 images, 5 annotations (1 crowds)" in done.stdout and "2 annotations of novel classes" in done.stdout
    written = {p.name for p in (root / "coco" / "annotations" / "ov_coco").iterdir()}
    assert written == {"instances_train2017_base.json", "instances_val2017_all.json", "classes.json"}


@pytest.fixture
def with_cocos_classes(root, coco):
    """The same annotations in a file that lists OV-COCO's 65 classes."""
    ids = {c["name"]: c["id"] for c in coco["categories"]}
    names = vocabulary("ov_coco").names
    categories = [{"id": ids.get(name, 100 + i), "name": name} for i, name in enumerate(names)]
    for split in ("train", "val"):
        path = root / "coco" / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps({**coco, "categories": categories}))
    return root


def test_published_counts_are_demanded_of_cocos_classes(with_cocos_classes):
    done = run("prepare_ov_coco.py", "--root", with_cocos_classes)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "but 107,761 were expected" in done.stderr
    assert not (with_cocos_classes / "coco" / "annotations" / "ov_coco").exists()
    assert run("prepare_ov_coco.py", "--root", with_cocos_classes, "--any-count").returncode == 0


def test_default_classes_are_cocos(root):
    done = run(
        "prepare_ov_coco.py", "--val-json", root / "coco/annotations/instances_val2017.json", "--out", root / "o"
    )
    assert done.returncode != 0 and "lack" in done.stderr and "'bicycle'" in done.stderr


def test_base_without_novel_is_refused(root, lists):
    done = run("prepare_ov_coco.py", "--root", root, *lists[:2])
    assert done.returncode == 2 and "belong together" in done.stderr


def test_ov_lvis_file_and_counts(root):
    done = run("prepare_ov_lvis.py", "--root", root, "--any-count")
    assert done.returncode == 0, done.stderr
    assert "5 images, 5 annotations" in done.stdout
    assert (root / "lvis" / "lvis_v1_train_norare.json").is_file()


def test_ov_lvis_demands_the_published_counts_of_both_files(root):
    val = root / "lvis" / "lvis_v1_val.json"
    done = run("prepare_ov_lvis.py", "--root", root)
    assert done.returncode != 0 and "lvis_v1_val.json does not exist" in done.stderr
    val.write_text((root / "lvis" / "lvis_v1_train.json").read_text())
    done = run("prepare_ov_lvis.py", "--root", root)
    assert done.returncode != 0 and "5 images, but 19,809 were expected" in done.stderr
    assert not (root / "lvis" / "lvis_v1_train_norare.json").exists()


def test_objects365_file_has_our_names_and_finds_its_images(tmp_path, objects365):
    folder = tmp_path / "objects365v2"
    folder.mkdir()
    (folder / "val" / "patch3").mkdir(parents=True)
    (folder / "val" / "patch3" / "b.jpg").write_bytes(b"")
    official = objects365(vocabulary("objects365_v2").names, objects365_v2_misspelt())
    (folder / "zhiyuan_objv2_val.json").write_text(json.dumps(official))
    done = run("prepare_objects365.py", "--root", tmp_path, "--version", "v2")
    assert done.returncode != 0 and "1 images, but 80,000 were expected" in done.stderr
    done = run("prepare_objects365.py", "--root", tmp_path, "--version", "v2", "--any-count")
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "objects365_val_names.json").read_text())
    assert [c["name"] for c in written["categories"]] == list(vocabulary("objects365_v2").names)
    assert written["images"][0]["file_name"] == "patch3/b.jpg"
    (folder / "zhiyuan_objv2_val.json").write_text(json.dumps(objects365(vocabulary("objects365_v1").names)))
    done = run("prepare_objects365.py", "--root", tmp_path, "--version", "v2", "--any-count")
    assert done.returncode != 0 and "other version" in done.stderr


def test_voc_file_and_counts(voc):
    done = run("prepare_voc.py", "--root", voc)
    assert done.returncode != 0 and "2 images, but 4,952 were expected" in done.stderr
    done = run("prepare_voc.py", "--root", voc, "--any-count")
    assert done.returncode == 0 and "2 images, 3 annotations (1 crowds), 2 of 20 classes" in done.stdout, done.stderr
    assert (voc / "VOCdevkit" / "VOC2007" / "voc2007_test.json").is_file()
    done = run("prepare_voc.py", "--root", voc, "--year", "2012")
    assert done.returncode != 0 and "VOC2012 test" in done.stderr
