"""The files of the world, read by the reference readers of their formats and by DenseRC's own."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from lvis import LVIS
from pycocotools.coco import COCO

from denserc.data.datasets.panoptic import PanopticRegions
from denserc.miniature.crops import View
from denserc.miniature.scenes import compose_scene
from denserc.miniature.world import BASE_NAMES, CLASS_NAMES, NOVEL_NAMES, STUFF, Domain, rename
from denserc.miniature.write_world import Sizes, write_world

SIZES = Sizes(train=24, val=10, transfer=8, lvis_train=60, lvis_val=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root, seed=3, sizes=SIZES)
    return root


@pytest.fixture(scope="module", params=["coco/{}/instances_train2017", "coco/{}/instances_val2017", "transfer/{}/*"])
def instances(request, world) -> COCO:
    pattern = request.param.format("annotations").replace("*", "instances_val2017")
    return COCO(world / f"{pattern}.json")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_same_seed_gives_the_same_bytes(world, tmp_path):
    small = Sizes(train=3, val=2, transfer=2, lvis_train=3, lvis_val=2)
    for name in ("a", "b"):
        write_world(tmp_path / name, seed=5, sizes=small)
    write_world(tmp_path / "c", seed=6, sizes=small)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 12 + 7 + 7 + 18  # pictures, panoptic PNGs, label PNGs, JSONs
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    pictures = [f for f in files if f.suffix == ".jpg"]
    assert all((tmp_path / "a" / f).read_bytes() != (tmp_path / "c" / f).read_bytes() for f in pictures)


def test_all_65_classes_with_scattered_ids_in_another_order(instances):
    categories = instances.dataset["categories"]
    names = [c["name"] for c in categories]
    ids = [c["id"] for c in categories]
    domain = Domain.MAIN if "striped purple cross" in names else Domain.TRANSFER
    own = [rename(name, domain) for name in CLASS_NAMES]
    assert sorted(names) == sorted(own) and len(set(ids)) == 65
    by_id = [c["name"] for c in sorted(categories, key=lambda c: c["id"])]
    assert max(ids) > 65  # gaps
    assert names != own and by_id != own and names != by_id


def test_files_of_one_domain_agree_on_ids_and_not_on_order(world):
    train, val = (read(world / f"coco/annotations/instances_{s}2017.json")["categories"] for s in ("train", "val"))
    assert {c["name"]: c["id"] for c in train} == {c["name"]: c["id"] for c in val}
    assert train != val


def test_masks_areas_and_boxes_are_those_of_the_visible_pixels(world):
    coco = COCO(world / "coco/annotations/instances_train2017.json")
    image_ids = sorted(coco.imgs)
    assert len(image_ids) == SIZES.train
    for i in (0, 7, 23):
        view = View.of(compose_scene(np.random.default_rng([3, 0, i])))
        annotations = coco.imgToAnns[image_ids[i]]
        assert len(annotations) == len(view.scene.things)
        for k, annotation in enumerate(annotations):
            mask = view.scene.thing_mask(k)
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
            assert annotation["area"] == mask.sum() > 0
            x, y, w, h = annotation["bbox"]
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert mask[y].any() and mask[y + h - 1].any() and mask[:, x].any() and mask[:, x + w - 1].any()
            assert coco.cats[annotation["category_id"]]["name"] == view.scene.things[k].name


def test_pictures_exist_and_show_the_scene(world, instances):
    folder = "train2017" if len(instances.imgs) == SIZES.train else "val2017"
    root = world / ("coco" if "striped purple cross" in {c["name"] for c in instances.cats.values()} else "transfer")
    for image in instances.imgs.values():
        picture = cv2.imread(str(root / folder / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
    first = cv2.imread(str(world / "coco/train2017" / f"{9:012d}.jpg"))[..., ::-1]
    expected = compose_scene(np.random.default_rng([3, 0, 0])).image
    assert np.abs(first.astype(int) - expected).mean() < 4


def test_panoptic_pngs_match_their_json(world):
    regions = PanopticRegions(
        world / "coco/annotations/panoptic_val2017.json", world / "coco/panoptic_val2017", world / "coco/val2017"
    )
    content = read(regions.json_file)
    assert Counter(c["isthing"] for c in content["categories"]) == {1: 65, 0: 8}
    instances = COCO(world / "coco/annotations/instances_val2017.json")
    coco_ids = {c["name"]: c["id"] for c in instances.cats.values()}
    assert {c["name"]: c["id"] for c in content["categories"] if c["isthing"]} == coco_ids
    assert len(regions) == SIZES.val
    areas = {s["id"]: s["area"] for a in content["annotations"] for s in a["segments_info"]}
    for image, annotation in zip(regions, content["annotations"], strict=True):
        assert Path(image["file_name"]).is_file()
        assert sum(s["mask"] for s in image["segments"]).min() == 1  # every pixel in exactly one segment
        for segment, info in zip(image["segments"], annotation["segments_info"], strict=True):
            assert segment["mask"].sum() == areas[info["id"]]
            rows, columns = np.nonzero(segment["mask"])
            x1, y1, x2, y2 = segment["bbox"]
            assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        things = [s for s in image["segments"] if s["isthing"]]
        assert len(things) == len(instances.imgToAnns[image["image_id"]])
        assert {regions.classes[s["label"]] for s in image["segments"] if not s["isthing"]} <= set(STUFF)


def test_captions_read_as_coco_captions(world):
    coco = COCO(world / "coco/annotations/captions_val2017.json")
    assert len(coco.anns) == 3 * SIZES.val
    assert all(annotation["caption"].strip() for annotation in coco.anns.values())


def test_lvis_is_long_tailed_and_federated(world):
    lvis = LVIS(str(world / "lvis/lvis_v1_train.json"))
    assert len(lvis.get_img_ids()) == SIZES.lvis_train
    rare = {c["name"] for c in lvis.cats.values() if c["frequency"] == "r"}
    assert rare == {name.replace(" ", "_") for name in NOVEL_NAMES}
    assert [lvis.cats[i]["name"] for i in range(1, 66)] == sorted(c["name"] for c in lvis.cats.values())
    mean = {f: np.mean([c["instance_count"] for c in lvis.cats.values() if c["frequency"] == f]) for f in "rcf"}
    assert mean["r"] < 0.4 * mean["c"] < 0.4 * mean["f"]
    partial = 0
    for image in lvis.imgs.values():
        present = {a["category_id"] for a in lvis.img_ann_map[image["id"]]}
        assert not present & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= present
        partial += len(image["not_exhaustive_category_ids"])
        assert "file_name" not in image
        assert (world / "coco" / Path(*image["coco_url"].split("/")[-2:])).is_file()
    assert partial > 0


def test_the_splits_are_ready_to_train_on(world):
    folder = world / "coco/annotations/ov_coco"
    train, val = read(folder / "instances_train2017_base.json"), read(folder / "instances_val2017_all.json")
    names = {c["id"]: c["name"] for c in train["categories"]}
    assert {names[a["category_id"]] for a in train["annotations"]} <= set(BASE_NAMES)
    assert {c["name"] for c in val["categories"]} == set(CLASS_NAMES)
    assert read(folder / "classes.json") == {"base": list(BASE_NAMES), "novel": list(NOVEL_NAMES)}
    norare = read(world / "lvis/lvis_v1_train_norare.json")
    rare = {c["id"] for c in norare["categories"] if c["frequency"] == "r"}
    assert not rare & {a["category_id"] for a in norare["annotations"]}
