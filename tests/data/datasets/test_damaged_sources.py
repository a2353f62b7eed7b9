"""Splits, transfer sets, class files and image lists of damaged files: an error before anything is written."""

import copy
import json
import math

import pytest

from denserc.data.datasets.image_lists import coco_list
from denserc.data.datasets.splits import read_classes, write_lvis_norare, write_ov_coco_splits
from denserc.data.datasets.transfer import write_objects365
from denserc.data.vocabulary.published import vocabulary
from denserc.structures import DataError, Vocabulary
from tests.data.test_prepare_scripts import run
from tests.paths import FIXTURES

CASE = FIXTURES / "cases" / "fuzz-20-split-of-unlisted-image" / "truth.json"
NO_NUMBERS = (None, "x", True, 1.5, math.nan, math.inf, [], {}, 10**400)
DAMAGE = [
    *[("annotations", "image_id", new) for new in (*NO_NUMBERS, 2147483648, -1)],
    *[("annotations", "category_id", new) for new in (*NO_NUMBERS, 999)],
    *[("annotations", "bbox", new) for new in (None, "x", [], [1, 2, 3], [1, 2, math.nan, 4], [1, 2, -3, 4])],
    *[("images", "id", new) for new in NO_NUMBERS],
    *[("images", "file_name", new) for new in (3, "", [], {})],
    *[("categories", "id", new) for new in NO_NUMBERS],
    *[("categories", "name", new) for new in (None, 3, "", [], {})],
]


def damaged(content, kind, field, new):
    content = copy.deepcopy(content)
    content[kind][0][field] = new
    return content


@pytest.mark.parametrize(("kind", "field", "new"), DAMAGE, ids=lambda value: repr(value)[:30])
def test_damaged_entries_are_named_and_nothing_is_written(tmp_path, coco, base, novel, objects365, kind, field, new):
    file, out = tmp_path / "a.json", tmp_path / "out"
    for category in coco["categories"]:
        category["frequency"] = "c"
    file.write_text(json.dumps(damaged(coco, kind, field, new)))
    with pytest.raises(DataError, match=rf"a\.json, {kind}\[0\].*{field}"):
        write_ov_coco_splits(out, Vocabulary((*base, *novel), novel=novel), val_json=file)
    with pytest.raises(DataError, match=rf"a\.json, {kind}\[0\].*{field}"):
        write_lvis_norare(out / "b.json", file)
    file.write_text(json.dumps(damaged(objects365(vocabulary("objects365_v1").names), kind, field, new)))
    with pytest.raises(DataError, match=rf"a\.json, {kind}\[0\].*{field}"):
        write_objects365(out / "b.json", file, vocabulary("objects365_v1"), image_root=tmp_path)
    assert not out.exists()


def test_annotation_of_an_unlisted_image_is_named(tmp_path):
    names = Vocabulary(("cat", "red cup", "striped ball"), novel=("red cup",))
    with pytest.raises(DataError, match=r"truth\.json, annotations\[0\].* 2147483648"):
        write_ov_coco_splits(tmp_path / "out", names, train_json=CASE)
    assert not (tmp_path / "out").exists()


def test_scripts_end_with_one_line_and_status_2(tmp_path):
    (tmp_path / "names.txt").write_text("cat\nstriped ball\n")
    (tmp_path / "novel.txt").write_text("red cup\n")
    done = run(
        "prepare_ov_coco.py", "--val-json", CASE, "--out", tmp_path / "out", "--base", tmp_path / "names.txt",
        "--novel", tmp_path / "novel.txt",
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    done = run("prepare_ov_lvis.py", "--train-json", CASE, "--out", tmp_path / "out" / "o.json", "--any-count")
    assert done.returncode == 2 and "2147483648" in done.stderr and not (tmp_path / "out").exists()
    done = run("prepare_semantic.py", "voc_20", "--root", tmp_path, "--workers", 0)
    assert done.returncode == 2 and "--workers is 0" in done.stderr
    for name in ("", "a/b", ".."):
        done = run(
            "prepare_own_semantic.py", "--instances", CASE, "--images", tmp_path, "--out", tmp_path / "out",
            "--name", name,
        )  # fmt: skip
        assert done.returncode == 2 and not (tmp_path / "out").exists()


def test_a_damaged_val_file_leaves_no_training_split(tmp_path, coco, base, novel):
    (tmp_path / "train.json").write_text(json.dumps(coco))
    (tmp_path / "val.json").write_text("[]")
    with pytest.raises(DataError, match=r"val\.json"):
        write_ov_coco_splits(
            tmp_path / "out", Vocabulary((*base, *novel), novel=novel), train_json=tmp_path / "train.json",
            val_json=tmp_path / "val.json",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"base": ["a"]}',
        '{"base": "a", "novel": []}',
        '{"base": ["a"], "novel": null}',
        '{"base": ["a"], "novel": {"b": 1}}',
        '{"base": ["a", 3], "novel": []}',
        '{"base": ["a"], "novel": [null]}',
        '{"base": [["a"]], "novel": []}',
        '{"base": ["a", "a"], "novel": []}',
        '{"base": ["a"], "novel": ["a"]}',
        '{"base": [""], "novel": []}',
        '{"base": [], "novel": []}',
        "[" * 100_000,
        '{"base": ["a"], "novel": []} x',
    ],
    ids=lambda text: text[:30],
)
def test_damaged_class_files_are_named(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=r"classes\.json"):
        read_classes(tmp_path / "classes.json")


@pytest.mark.parametrize(
    "images",
    [None, {}, "x", 3, [3], [None], [[]], [{}], [{"id": 1}], [{"file_name": "a.jpg"}]]
    + [[{"id": new, "file_name": "a.jpg"}] for new in (None, True, 1.5, math.nan, [], {}, "")]
    + [[{"id": 1, "file_name": new}] for new in (None, 3, True, [], {}, "", "a\0b")]
    + [[{"id": 1, "coco_url": new}] for new in (None, 3, [], "")],
    ids=lambda value: repr(value)[:40],
)
def test_damaged_lists_of_images_are_named(tmp_path, images):
    (tmp_path / "a.json").write_text(json.dumps({"images": images}))
    with pytest.raises(DataError, match=r"a\.json"):
        coco_list(tmp_path / "a.json", tmp_path)
