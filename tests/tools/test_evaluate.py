"""The command that scores saved files again, on a set described by a YAML file."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from denserc.commands.eval import main
from denserc.data.images.labels import write_labels
from denserc.data.proposals import result_lines, write_results
from denserc.evaluation import build_evaluator
from denserc.structures import ConfigurationError, DataError
from denserc.tools.evaluate import evaluate
from tests.evaluation import generated


@pytest.fixture
def described(tmp_path, monkeypatch):
    """A description that registers "shapes_val", and its annotation file's content."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    truth = generated.ground_truth(3)
    (tmp_path / "val.json").write_text(json.dumps(truth))
    names = [c["name"] for c in truth["categories"]]
    description = {"name": "shapes", "base": names[2:], "novel": names[:2]}
    description["val"] = {"annotations": "val.json", "images": "images"}
    (tmp_path / "shapes.yaml").write_text(json.dumps(description))  # JSON is YAML
    yield tmp_path / "shapes.yaml", truth
    for catalog in (DatasetCatalog, MetadataCatalog):
        if "shapes_val" in catalog.list():
            catalog.remove("shapes_val")


def test_the_command_repeats_the_figures_and_writes_the_tables(described, tmp_path, capsys):
    description, truth = described
    found = generated.detections(truth, 3)
    (tmp_path / "found.json").write_text(json.dumps(found))
    proposals = [line for d in found for line in result_lines(d["image_id"], *as_arrays(d))]
    write_results(tmp_path / "proposals.json.gz", proposals)
    main([
        "--data-set", "shapes_val", "--register", str(description), "--predictions", str(tmp_path / "found.json"),
        "--proposals", str(tmp_path / "proposals.json.gz"), "--output-dir", str(tmp_path / "again"), "--json",
    ])  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    expected = build_evaluator("shapes_val").evaluate_detections(found)
    assert list(printed) == ["ov_coco", "proposals"]
    assert printed["ov_coco"] == pytest.approx(expected["ov_coco"], nan_ok=True)
    assert 0 < printed["proposals"]["AR@100_all"] < 100
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "ov_coco_classes.csv", "ov_coco_results.json", "proposals_results.json",
    }  # fmt: skip


def as_arrays(detection):
    import numpy as np

    x, y, w, h = detection["bbox"]
    return np.array([[x, y, x + w, y + h]]), np.array([detection["score"]])


def test_mistakes_are_said(described, tmp_path):
    with pytest.raises(ConfigurationError, match="nothing to evaluate"):
        evaluate("shapes_val")
    with pytest.raises(ConfigurationError, match="nearest"):
        evaluate("nowhere", predictions="x.json")
    with pytest.raises(DataError, match="do not exist"):
        main(["--data-set", "shapes_val", "--register", str(described[0]), "--predictions", str(tmp_path / "x.json")])


def test_label_maps_of_a_semantic_set_are_scored_again(tmp_path, forget_registered, capsys):
    for name, values in (("a", [[0, 1], [1, 255]]), ("b", [[0, 0], [1, 1]])):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / f"images/{name}.png")
        write_labels(tmp_path / f"labels/{name}.png", np.array(values, np.uint8))
        write_labels(tmp_path / f"predictions/{name}.png", np.array([[0, 1], [2, 0]], np.uint8))
    description = tmp_path / "d.yaml"
    description.write_text("name: s\nclasses: [sky, tree, sea]\nval: {images: images, labels: labels}\n")
    given = ["--data-set", str(description), "--predictions", str(tmp_path / "predictions"), "--json"]
    main([*given, "--output-dir", str(tmp_path / "out")])
    results = json.loads(capsys.readouterr().out)
    assert results["sem_seg"]["pACC"] == pytest.approx(300 / 7)
    assert results["sem_seg"]["mIoU"] == pytest.approx(1.5 * results["sem_seg_or_predicted"]["mIoU"])  # "sea"
    assert (tmp_path / "out/sem_seg_classes.csv").is_file()
    with pytest.raises(ConfigurationError, match="no proposals"):
        evaluate(str(description), proposals="p.json")
