"""The scripts in datasets/, run as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(DATASETS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


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


def test_official_counts_can_be_demanded(root, lists):
    done = run("prepare_ov_coco.py", "--root", root, *lists, "--expect-official")
    assert done.returncode != 0
    assert "2 images, but 107,761 were expected" in done.stderr and "Traceback" not in done.stderr


def test_default_classes_are_cocos(root):
    done = run(
        "prepare_ov_coco.py", "--val-json", root / "coco/annotations/instances_val2017.json", "--out", root / "o"
    )
    assert done.returncode != 0 and "lack" in done.stderr and "'bicycle'" in done.stderr


def test_base_without_novel_is_refused(root, lists):
    done = run("prepare_ov_coco.py", "--root", root, *lists[:2])
    assert done.returncode == 2 and "belong together" in done.stderr


def test_ov_lvis_file_and_counts(root):
    done = run("prepare_ov_lvis.py", "--root", root)
    assert done.returncode == 0, done.stderr
    assert "5 images, 5 annotations" in done.stdout
    assert (root / "lvis" / "lvis_v1_train_norare.json").is_file()
