"""Registered generated sets for the evaluators' tests."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.evaluation import generated


@pytest.fixture
def registered(tmp_path):
    """A function that registers a generated set and gives its name; all are removed afterwards."""
    names = []

    def register(truth: dict, *, novel=(), evaluator_type="ov_coco", order=generated.CATEGORY_IDS) -> str:
        name = f"generated_{len(names)}"
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(truth))
        name_of = {c["id"]: c["name"] for c in truth["categories"]}
        MetadataCatalog.get(name).set(
            thing_classes=[name_of[c] for c in order],
            novel_classes=list(novel),
            base_classes=[name_of[c] for c in order if name_of[c] not in set(novel)],
            thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(order)},
            json_file=str(path),
            evaluator_type=evaluator_type,
        )
        names.append(name)
        return name

    yield register
    for name in names:
        MetadataCatalog.remove(name)
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
