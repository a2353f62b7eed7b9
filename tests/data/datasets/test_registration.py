"""Registered sets: labels by name, novel boxes kept from training, nothing read too early."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from denserc.config import get_denserc_config
from denserc.data.config import register_configured
from denserc.data.datasets.registration import dataset_vocabulary, register_from_yaml, register_open_vocab_dataset
from denserc.structures import ConfigurationError, DataError, Vocabulary
from tests.paths import FIXTURES

pytestmark = pytest.mark.usefixtures("forget_registered")


@pytest.fixture
def json_file(coco, tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco))
    return path


def named_labels(records: list[dict], name: str) -> dict[int, list[str]]:
    classes = MetadataCatalog.get(name).thing_classes
    return {r["image_id"]: [classes[a["category_id"]] for a in r["annotations"]] for r in records}


@pytest.mark.parametrize("reverse", [False, True])
def test_labels_follow_names_whatever_the_order_given(json_file, base, novel, reverse):
    order = slice(None, None, -1 if reverse else 1)
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base[order], novel=novel[order])
    records = DatasetCatalog.get("tiny")
    assert named_labels(records, "tiny") == {
        10: ["person", "cat"], 20: ["dog"], 30: ["person", "horse"], 40: [], 50: [],
    }  # fmt: skip
    metadata = MetadataCatalog.get("tiny")
    assert metadata.thing_classes == [*base[order], *novel[order]]
    name_of = {1: "person", 19: "horse", 7: "train", 17: "cat", 18: "dog"}
    assert {i: metadata.thing_classes[k] for i, k in metadata.thing_dataset_id_to_contiguous_id.items()} == name_of


def test_training_never_gives_novel_boxes(json_file, base, novel):
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base, novel=novel, training=True)
    labels = named_labels(DatasetCatalog.get("tiny"), "tiny")
    assert labels == {10: ["person"], 20: [], 30: ["person", "horse"], 40: [], 50: []}


def test_training_file_need_not_know_novel_classes(coco, json_file, base, novel):
    coco["categories"] = [c for c in coco["categories"] if c["name"] not in novel]
    coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] not in (17, 18)]
    json_file.write_text(json.dumps(coco))
    register_open_vocab_dataset("train", json_file, "pictures", base=base, novel=novel, training=True)
    assert named_labels(DatasetCatalog.get("train"), "train")[30] == ["person", "horse"]
    register_open_vocab_dataset("val", json_file, "pictures", base=base, novel=novel)
    with pytest.raises(DataError, match="lack 'cat', 'dog'"):
        DatasetCatalog.get("val")


def test_records_are_detectron2s(json_file, base):
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base)
    record = next(r for r in DatasetCatalog.get("tiny") if r["image_id"] == 30)
    assert (record["file_name"], record["height"], record["width"]) == ("pictures/c.jpg", 30, 50)
    crowd, horse = record["annotations"]
    assert crowd["iscrowd"] == 1 and isinstance(crowd["segmentation"]["counts"], bytes)
    assert horse["bbox_mode"] == BoxMode.XYWH_ABS and horse["bbox"] == [6, 2.0, 10.0, 20.0]


def test_polygons_without_three_corners_are_boxes_only(coco, json_file, base):
    coco["annotations"][-1]["segmentation"] = [[0, 0, 1, 1]]
    json_file.write_text(json.dumps(coco))
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base)
    (record,) = [record for record in DatasetCatalog.get("tiny") if record["image_id"] == 30]
    assert named_labels([record], "tiny") == {30: ["person", "horse"]}
    assert ["segmentation" in a for a in record["annotations"]] == [True, False]


def test_lvis_files_locate_images_by_url_and_tell_frequencies(coco, json_file, base):
    for image in coco["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"
        image["neg_category_ids"] = [7]
    for category in coco["categories"]:
        category["frequency"] = "r" if category["name"] == "train" else "f"
    for annotation in coco["annotations"]:
        del annotation["iscrowd"]
    json_file.write_text(json.dumps(coco))
    register_open_vocab_dataset("lvis", json_file, "coco", base=base, evaluator_type="ov_lvis")
    record = DatasetCatalog.get("lvis")[0]
    assert record["file_name"] == "coco/val2017/a.jpg" and record["neg_category_ids"] == [7]
    assert MetadataCatalog.get("lvis").class_frequency == {"person": "f", "horse": "f", "train": "r"}


def test_surrounding_blanks_do_not_hide_a_class(coco, json_file):
    coco["categories"][0]["name"] = "dog "
    json_file.write_text(json.dumps(coco))
    register_open_vocab_dataset("tiny", json_file, "pictures", base=["dog"])
    assert named_labels(DatasetCatalog.get("tiny"), "tiny")[20] == ["dog"]


def test_absent_file_is_an_error_only_when_used(base):
    register_open_vocab_dataset("tiny", "nowhere/x.json", "pictures", base=base)
    with pytest.raises(DataError, match=r"nowhere/x.json does not exist"):
        DatasetCatalog.get("tiny")


def test_a_name_can_be_registered_anew(json_file, base):
    register_open_vocab_dataset("tiny", "nowhere/x.json", "pictures", base=base)
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base[:1])
    assert len(DatasetCatalog.get("tiny")) == 5
    assert dataset_vocabulary("tiny") == Vocabulary(base[:1])


def test_unregistered_name_lists_the_registered(json_file, base):
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base)
    with pytest.raises(DataError, match="'tiny'"):
        dataset_vocabulary("tiny_val")


def test_annotation_of_an_unlisted_image_is_refused(coco, json_file, base):
    coco["annotations"][1]["image_id"] = 99
    json_file.write_text(json.dumps(coco))
    register_open_vocab_dataset("tiny", json_file, "pictures", base=base)
    with pytest.raises(DataError, match="image 99"):
        DatasetCatalog.get("tiny")


def test_a_description_registers_train_and_val(json_file, base, novel, tmp_path):
    (tmp_path / "novel.txt").write_text("\n".join(novel))
    description = tmp_path / "mine.yaml"
    description.write_text(
        f"name: mine\nbase: [{', '.join(base)}]\nnovel: novel.txt\n"
        "train: {annotations: instances.json, images: pictures}\n"
        "val: {annotations: instances.json, images: pictures}\n"
    )
    assert register_from_yaml(description) == ("mine_train", "mine_val")
    assert named_labels(DatasetCatalog.get("mine_train"), "mine_train")[10] == ["person"]
    assert named_labels(DatasetCatalog.get("mine_val"), "mine_val")[10] == ["person", "cat"]
    assert MetadataCatalog.get("mine_val").image_root == str(tmp_path / "pictures")


@pytest.mark.parametrize(
    "text, message",
    [
        ("name: a\nbase: [x]\nvalidation: {}", "validation"),
        ("name: a\nbase: [x]", "neither 'train' nor 'val'"),
        ("base: [x]\nval: {annotations: a, images: b}", "'name'"),
        ("name: a\nbase: [x]\nval: {annotations: a}", "images"),
        ("- a", "mapping"),
        ("name: a\nbase: [x, no]\nval: {annotations: a, images: b}", "False.*quotes"),
        ("name: a\nbase: {x: 1}\nval: {annotations: a, images: b}", "'base' is .*; expected is a list"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, text, message):
    path = tmp_path / "d.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        register_from_yaml(path)


def test_classes_missing_from_the_file_are_named_on_use(json_file, tmp_path):
    (tmp_path / "d.yaml").write_text("name: d\nbase: [horses]\nval: {annotations: instances.json, images: x}")
    register_from_yaml(tmp_path / "d.yaml")
    with pytest.raises(DataError, match="lack 'horses' .did you mean 'horse'"):
        DatasetCatalog.get("d_val")


def test_config_registers_descriptions_before_looking_up_sets(json_file, tmp_path):
    (tmp_path / "d.yaml").write_text("name: d\nbase: [horse]\nval: {annotations: instances.json, images: x}")
    cfg = get_denserc_config()
    cfg.merge_from_list(["DATASETS.REGISTER", f"('{tmp_path / 'd.yaml'}',)"])
    register_configured(cfg, tmp_path)
    assert {"d_val", "ov_coco_2017_val"} <= set(DatasetCatalog.list())
    cfg.merge_from_list(["DATASETS.REGISTER", f"('{tmp_path / 'e.yaml'}',)"])
    with pytest.raises(DataError, match="e.yaml"):
        register_configured(cfg, tmp_path)


SPLIT = "val: {annotations: truth.json, images: images}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"name: 3\nbase: [cat]\n{SPLIT}", "'name' is 3; expected is a text"),
        (f"name: a/b\nbase: [cat]\n{SPLIT}", "'name' is 'a/b'"),
        (f"name: ' '\nbase: [cat]\n{SPLIT}", "'name' is ' '"),
        (f"name: birds\nbase: [cat]\nevaluator: coco\n{SPLIT}", "'evaluator' is 'coco'; expected is 'ov_coco' or"),
        (f"name: birds\nbase: [cat]\nevaluator: [ov_coco]\n{SPLIT}", "'evaluator' is"),
        (f"name: birds\nbase: null\n{SPLIT}", "'base' is None; expected is a list"),
        (f"name: birds\nbase: ''\n{SPLIT}", "'base' is ''"),
        (f"name: birds\nbase: [cat]\nnovl: [dog]\n{SPLIT}", "no key 'novl'. The nearest is 'novel'"),
        (f"name: birds\nbase: [cat]\n3: 4\n{SPLIT}", "no key '3'"),
        ("name: birds\nbase: [cat]\nval: [truth.json]", "'val' is .*expected is a mapping"),
        ("name: birds\nbase: [cat]\nval: null", "'val' is empty"),
        ("name: birds\nbase: [cat]\nval: {annotations: truth.json, images: 3}", "'val.images' is 3"),
        ("name: birds\nbase: [cat]\nval: {annotations: '', images: x}", "'val.annotations' is ''"),
        ("name: birds\nbase: [cat]\nval: {annotations: 'http://x/a.json', images: x}", "a local path"),
        ("name: birds\nbase: [cat]\nval: {annotation: a, images: x}", "'val.annotation'. The nearest is 'annotations'"),
        ("name: s\nclasses: [a]\nignore: 1.5\nval: {images: x, labels: y}", "'ignore' is 1.5"),
        ("name: s\nclasses: [a]\nval: {images: x, labels: [y]}", "'val.labels' is"),
        ("", "is empty; expected is a mapping"),
    ],
)
def test_faults_of_descriptions_name_file_and_key(tmp_path, text, message):
    (tmp_path / "d.yaml").write_text(text)
    before = set(DatasetCatalog.list())
    with pytest.raises(ConfigurationError, match=f"d.yaml.*{message}"):
        register_from_yaml(tmp_path / "d.yaml")
    assert set(DatasetCatalog.list()) == before


def test_a_list_of_annotation_files_is_refused():
    path = FIXTURES / "cases/fuzz-24-description-annotations-list/birds.yaml"
    with pytest.raises(ConfigurationError, match=r"birds.yaml: 'val.annotations' is \['truth.json'\]; expected"):
        register_from_yaml(path)


@pytest.mark.parametrize("text", ["name: a\nname: b", "name: !!python/name:os.system", "a: &a [*a]", "a: b: c"])
def test_descriptions_are_plain_values(tmp_path, text):
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(DataError, match="d.yaml is not a readable YAML file"):
        register_from_yaml(tmp_path / "d.yaml")


def test_an_unregistered_set_names_the_nearest():
    with pytest.raises(DataError, match="'ov_coco_2017_vall' is registered.* nearest: "):
        dataset_vocabulary("ov_coco_2017_vall")
