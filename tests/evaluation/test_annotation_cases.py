"""Evaluation on annotation files as other tools write them: loader and evaluator agree."""

import json
import logging

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from denserc.commands.eval import main
from denserc.data import register_from_yaml
from denserc.evaluation import build_evaluator
from tests.paths import FIXTURES

pytestmark = pytest.mark.usefixtures("forget_registered")
CASES = FIXTURES / "cases"


@pytest.mark.parametrize("case", ["19-iscrowd-as-text", "23-area-null"])
def test_saved_results_score_as_on_a_correct_file(case, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = CASES / case
    main(["--data-set", str(folder / "my.yaml"), "--predictions", str(folder / "results.json"), "--json"])
    metrics = json.loads(capsys.readouterr().out)["coco"]
    assert metrics["AP_all"] == metrics["APm_all"] == pytest.approx(100)
    assert metrics["APs_all"] is None and metrics["APl_all"] is None


@pytest.mark.parametrize("case", ["28-image-ids-as-digits", "17-category-ids-as-text"])
def test_images_that_were_run_are_not_called_missing(case, caplog):
    (name,) = register_from_yaml(CASES / case / "my.yaml")
    evaluator = build_evaluator(name)
    evaluator.reset()
    with caplog.at_level(logging.WARNING):
        for record in DatasetCatalog.get(name):
            boxes = torch.tensor([a["bbox"] for a in record["annotations"]], dtype=torch.float32)
            boxes[:, 2:] += boxes[:, :2]
            found = Instances((72, 96), pred_boxes=Boxes(boxes), scores=torch.ones(2))
            found.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
            evaluator.process([record], [{"instances": found}])
        metrics = evaluator.evaluate()
    assert metrics["coco"]["AP_all"] == pytest.approx(100)
    assert not any("not run" in record.getMessage() for record in caplog.records)
