"""The published class lists: sizes, splits, and names that are easily confused."""

import json

import pytest

from denserc.data.vocabulary.published import (
    VOCABULARIES,
    lvis_frequencies,
    objects365_v2_misspelt,
    panoptic_stuff,
    read_class_list,
    vocabulary,
)
from denserc.structures import ConfigurationError, DataError
from tests.paths import DATA, FIXTURES


@pytest.mark.parametrize(
    "name, classes, novel",
    [("ov_coco", 65, 17), ("coco", 80, 0), ("ov_lvis", 1203, 337), ("voc", 20, 0), ("objects365_v1", 365, 0),
     ("objects365_v2", 365, 0),
     ("coco_panoptic", 133, 0), ("coco_stuff", 171, 0), ("ade20k_150", 150, 0), ("ade20k_847", 847, 0),
     ("pascal_context_59", 59, 0), ("pascal_context_459", 459, 0), ("voc_joined", 20, 0), ("voc_background", 59, 0),
     ("cityscapes", 19, 0)],
)  # fmt: skip
def test_sizes_are_the_published_ones(name, classes, novel):
    assert (len(vocabulary(name)), len(vocabulary(name).novel)) == (classes, novel)


def test_every_vocabulary_is_counted_above():
    assert len(VOCABULARIES) == 15


def test_open_vocabulary_coco_is_part_of_coco():
    assert set(vocabulary("ov_coco").names) < set(vocabulary("coco").names)
    assert {"cat", "dog", "umbrella"} <= vocabulary("ov_coco").novel
    assert not {"person", "truck"} & vocabulary("ov_coco").novel
    assert "stop sign" in vocabulary("coco").names and "stop sign" not in vocabulary("ov_coco").names


def test_rare_is_novel_in_lvis():
    frequencies = lvis_frequencies()
    counts = {f: list(frequencies.values()).count(f) for f in "fcr"}
    assert counts == {"f": 405, "c": 461, "r": 337}
    assert vocabulary("ov_lvis").novel == {n for n, f in frequencies.items() if f == "r"}
    assert vocabulary("ov_lvis").names[0] == "aerosol_can" and vocabulary("ov_lvis").names[-1] == "zucchini"


def test_panoptic_has_things_before_stuff():
    names = vocabulary("coco_panoptic").names
    assert names[:80] == vocabulary("coco").names
    assert set(names[80:]) == panoptic_stuff() and len(panoptic_stuff()) == 53


def test_objects365s_versions_differ_in_classes_and_order():
    first, second = (vocabulary(f"objects365_{version}").names for version in ("v1", "v2"))
    assert "tissue " in first and all(name == name.strip() for name in second)
    lower = [{name.strip().lower() for name in names} for names in (first, second)]
    assert len(lower[0] & lower[1]) < 330 and first.index("hat") != second.index("Hat")
    misspelt = objects365_v2_misspelt()
    assert set(misspelt) <= set(second) and not set(misspelt.values()) & set(second)
    assert misspelt["Basket"] == "Bakset"


def test_unknown_vocabulary_lists_the_known():
    with pytest.raises(ConfigurationError, match="'coco_panoptic'"):
        vocabulary("cocoo")


def test_class_lists_of_users(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["cat", "dog"]))
    (tmp_path / "a.txt").write_text("# pets\ncat\n\n dog \n")
    assert read_class_list(tmp_path / "a.json") == read_class_list(tmp_path / "a.txt") == ("cat", "dog")


@pytest.mark.parametrize("name, text", [("a.json", "{}"), ("a.json", "[1]"), ("a.json", "[cat"), ("a.txt", "\n")])
def test_strange_class_lists_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        read_class_list(tmp_path / name)
    with pytest.raises(DataError, match="absent"):
        read_class_list(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    "name, file",
    [("coco_stuff", "coco"), ("ade20k_847", "ade847"), ("pascal_context_59", "pc59"), ("pascal_context_459", "pc459"),
     ("voc_joined", "voc20"), ("voc_background", "voc20b"), ("ade20k_150", "ade150")],
)  # fmt: skip
def test_segmentation_lists_are_catsegs_but_for_blanks(name, file):
    path = DATA / "data" / "class_lists" / f"seg_{file}.json"
    if not path.is_file():
        pytest.skip(f"{path} is not available")
    assert list(vocabulary(name).names) == [entry.strip() for entry in json.loads(path.read_text())]


def test_cityscapes_names_are_detectron2s():
    from detectron2.data.datasets.builtin_meta import _get_builtin_metadata

    assert list(vocabulary("cityscapes").names) == _get_builtin_metadata("cityscapes")["stuff_classes"]


@pytest.mark.parametrize("case", ["10-class-list-latin1/names.txt", "fuzz-26-class-list-latin1/classes.txt"])
def test_a_class_list_in_another_encoding_is_refused(case):
    path = FIXTURES / "cases" / case
    with pytest.raises(DataError, match=f"{path.name} is not UTF-8: .* Save it as UTF-8"):
        read_class_list(path)


def test_a_byte_order_mark_is_no_part_of_a_name():
    assert read_class_list(FIXTURES / "cases/33-class-list-with-bom/names.txt") == ("red box", "green ball")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_number_sign_begins_a_comment_only_before_a_blank(tmp_path, end):
    lines = ["# pets", "#", "#1 player", "  # more", "C# book", "#hashtag", "", " dog\x85house "]
    (tmp_path / "a.txt").write_bytes(end.join(lines).encode())
    assert read_class_list(tmp_path / "a.txt") == ("#1 player", "C# book", "#hashtag", "dog\x85house")
    (tmp_path / "a.json").write_text(json.dumps(["# pets", "#1 player"]))
    assert read_class_list(tmp_path / "a.json") == ("# pets", "#1 player")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "cat\n\n cat \n", "'cat' twice: line 1 and line 3"),
        ("a.json", '["cat", "dog", "cat"]', "'cat' twice: entry 0 and entry 2"),
        ("a.json", '["cat", ""]', "entry 1: expected is a non-empty text"),
        ("a.json", '["cat", null]', "entry 1: .* got None"),
        ("a.json", '["cat", ["dog"]]', r"entry 1: .* got \['dog'\]"),
        ("a.json", '["cat\\u0000"]', r"entry 0: .*U\+0000"),
        ("a.json", '["\\ufeffcat"]', r"entry 0: .*U\+FEFF"),
        ("a.json", '"cat"', "is 'cat'; expected is a list"),
        ("a.json", "[]", "has no names"),
        ("a.txt", '["cat",\n"dog"]', "looks like JSON.* Name it a.json"),
        ("a.txt", "# only\n#\n", "has no names"),
    ],
)
def test_faults_of_class_lists_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_class_list(tmp_path / name)
