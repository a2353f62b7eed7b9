"""LVIS's 1,203 classes in one pass, with CLIPSelf's text embeddings."""

import csv
import json

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.data.vocabulary.published import vocabulary
from denserc.data.vocabulary.text_embeddings import load_text_embeddings
from denserc.detection.modeling.postprocess import DetectionRules
from denserc.evaluation import build_evaluator
from denserc.structures import Vocabulary
from tests.paths import DATA

EMBEDDINGS = DATA / "data/text_embeddings/lvis_with_background_evaclip_vitb_16.pt"
pytestmark = pytest.mark.skipif(not EMBEDDINGS.is_file(), reason="the originals' text embeddings are not at hand")


@pytest.fixture(scope="module")
def lvis():
    return vocabulary("ov_lvis")


@pytest.fixture()
def model(wide, tiny_config, lvis):
    cfg = tiny_config()
    cfg.MODEL.FVIT.FUSION.TEMPERATURE, cfg.MODEL.FVIT.FUSION.NOVEL = 50.0, 0.4
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 1e-4, 300
    model = wide(cfg, 512)
    model.set_text_embeddings(load_text_embeddings(EMBEDDINGS, [*lvis.names, "background"]), novel=lvis.novel)
    return model


def pointing(model, names):
    """Make detector and encoder see region i as the i-th of these names: features become its text vector."""
    held = model.roi_heads.classes
    vectors = held.vectors[[held.vocabulary.index(name) for name in names]]
    model.roi_heads.scores = lambda levels, dense, boxes: (
        50.0 * vectors @ held.vectors.T,
        50.0 * vectors @ held.vectors.T,
        torch.zeros(len(names), 4),
    )
    # 1,203 boxes side by side, none touching another
    corner = torch.stack([torch.arange(len(names)) % 40 * 12.0, torch.arange(len(names)) // 40 * 12.0], dim=1)
    return torch.cat([corner, corner + 10], dim=1)


def test_scores_are_finite_and_a_picture_has_detections(model, make_inputs, lvis):
    inputs = make_inputs()
    with torch.no_grad():
        images = model.preprocess(inputs)
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features)
        levels = [features[name] for name in model.roi_heads.in_features]
        boxes = [p.proposal_boxes.tensor for p in proposals]
        scored = model.roi_heads.score_boxes(levels, features["dense"], boxes, images.image_sizes)
    for _, scores in scored:
        assert scores.shape[1] == 1203 and torch.isfinite(scores).all() and (scores > 0).all() and (scores < 1).all()
    for output in model(inputs):
        found = output["instances"]
        assert 0 < len(found) <= 300 and torch.isfinite(found.scores).all()
        assert found.pred_classes.max() < 1203


@pytest.mark.parametrize("backwards", [False, True])
def test_every_class_is_found_by_name_in_any_label_order(model, lvis, backwards):
    names = lvis.names[::-1] if backwards else lvis.names
    embeddings = load_text_embeddings(EMBEDDINGS, [*sorted(lvis.names), "background"])
    model.roi_heads.classes.set(Vocabulary(names, novel=lvis.novel), embeddings)
    boxes = pointing(model, sorted(lvis.names))
    model.roi_heads.rules = DetectionRules(score_threshold=1e-4, iou=0.5, limit=100_000, one_label=True)
    (found,) = model.roi_heads.detect([], None, [boxes], [(600, 600)])
    assert len(found) == 1203
    place = {tuple(box): name for box, name in zip(boxes.tolist(), sorted(lvis.names), strict=True)}
    seen = [place[tuple(box)] for box in found.pred_boxes.tensor.tolist()]
    right = [names[label] == name for label, name in zip(found.pred_classes.tolist(), seen, strict=True)]
    assert sum(right) == 1203


def test_the_table_has_1203_classes(model, lvis, tmp_path):
    """A perfect detector of one object of every class, through the evaluator."""
    by_name = sorted(lvis.names)  # the file's order is not the vocabulary's
    boxes = pointing(model, by_name)
    truth = {
        "images": [{"id": 1, "height": 600, "width": 600, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "categories": [
            {"id": i + 1, "name": name, "frequency": "r" if name in lvis.novel else "fc"[i % 2]}
            for i, name in enumerate(by_name)
        ],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": i + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": 100.0}
            for i, (x1, y1, x2, y2) in enumerate(boxes.tolist())
        ],
    }
    for image in truth["images"]:
        image["file_name"] = "1.jpg"
    (tmp_path / "lvis.json").write_text(json.dumps(truth))
    base = [name for name in lvis.names if name not in lvis.novel]
    register_open_vocab_dataset(
        "lvis_1203", tmp_path / "lvis.json", tmp_path, base=base, novel=sorted(lvis.novel), evaluator_type="ov_lvis"
    )
    try:
        DatasetCatalog.get("lvis_1203")
        names = MetadataCatalog.get("lvis_1203").thing_classes
        model.set_text_embeddings(load_text_embeddings(EMBEDDINGS, [*names, "background"]), novel=lvis.novel)
        pointing(model, by_name)
        model.roi_heads.rules = DetectionRules(score_threshold=1e-4, iou=0.5, limit=2000, one_label=True)
        (found,) = model.roi_heads.detect([], None, [boxes], [(600, 600)])
        evaluator = build_evaluator("lvis_1203", tmp_path, lvis_protocols=["standard", "fixed"])
        evaluator.process([{"image_id": 1}], [{"instances": found}])
        results = evaluator.evaluate()
    finally:
        DatasetCatalog.remove("lvis_1203")
        MetadataCatalog.remove("lvis_1203")
    assert results["ov_lvis_fixed"]["AP_all"] == results["ov_lvis_fixed"]["AP_rare"] == pytest.approx(100.0)
    assert results["ov_lvis"]["AP_all"] == pytest.approx(100 * 300 / 1203)  # 300 detections of the one image count
    with (tmp_path / "ov_lvis_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == names and len(rows) == 1203
    settings = json.loads((tmp_path / "ov_lvis_results.json").read_text())["settings"]
    assert settings["classes"] == settings["classes_with_ground_truth"] == 1203
