"""Ground truth as columns: entries as other tools write them count as they are trained on, or are refused."""

import copy
import json
import math

import numpy as np
import pytest

from denserc.evaluation.scoring.average_precision import Backend, Shape, score_detections
from denserc.evaluation.scoring.tables import read_truth
from denserc.structures import DataError
from tests.evaluation import generated
from tests.paths import FIXTURES

CASES = FIXTURES / "cases"


def case(name: str, file: str = "annotations.json"):
    return json.loads((CASES / name / file).read_text(encoding="utf-8-sig"))


@pytest.fixture
def truth():
    return generated.ground_truth(2)


def columns(truth: dict) -> dict[str, np.ndarray]:
    table = read_truth(truth, generated.CATEGORY_IDS, federated=False)
    return {name: value for name, value in vars(table).items() if isinstance(value, np.ndarray)}


def test_repairs_give_the_columns_of_a_correct_file(truth):
    given = copy.deepcopy(truth)
    for image in given["images"]:
        image.update(id=f"{image['id']:06d}", height=str(image["height"]), width=float(image["width"]))
    for annotation in given["annotations"]:
        annotation["image_id"] = f"{annotation['image_id']:06d}"
        annotation["category_id"] = str(annotation["category_id"])
        annotation["iscrowd"] = "1" if annotation["iscrowd"] else None
        annotation["area"] = None
    before = copy.deepcopy(given)
    expected, found = columns(truth), columns(given)
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert np.array_equal(found[name], column) and found[name].dtype == column.dtype, name
    assert given == before, "the content is not changed"


def test_flags_as_text_and_null_areas_score_as_they_are_meant():
    for name in ("19-iscrowd-as-text", "23-area-null", "28-image-ids-as-digits"):
        results = case("23-area-null", "results.json")
        scores = score_detections(case(name), results, category_ids=[1, 2])
        assert scores.mean("AP") == pytest.approx(100) and scores.mean("APm") == pytest.approx(100)
        assert math.isnan(scores.mean("APs")) and math.isnan(scores.mean("APl"))


@pytest.mark.parametrize("backend", [Backend.COLUMNS, Backend.REFERENCE])
@pytest.mark.parametrize("coordinate", [math.nan, math.inf, -math.inf, 1e9, 2**31, 10**400])
def test_no_coordinate_reaches_c_code_unchecked(truth, backend, coordinate):
    truth["annotations"][0]["segmentation"] = [[coordinate, 3, 10, 3, 10, 12]]
    results = generated.detections(generated.ground_truth(2), 2, masks=True)
    with pytest.raises(DataError, match=r"annotations\[0\].* coordinate"):
        score_detections(truth, results, category_ids=[7], shape=Shape.MASKS, backend=backend)


@pytest.mark.parametrize("cut", [0, 1, -1])
def test_no_run_lengths_reach_c_code_unchecked(truth, cut):
    mask = truth["annotations"][0]["segmentation"]
    mask["counts"] = mask["counts"][:cut] if cut else "o" * 40
    with pytest.raises(DataError, match=r"annotations\[0\].* 'counts'"):
        read_truth(truth, [7], federated=False)


@pytest.mark.parametrize("backend", list(Backend))
def test_objects_without_a_mask_are_named_by_every_backend(truth, backend):
    for annotation in truth["annotations"]:
        del annotation["segmentation"]
    results = generated.detections(generated.ground_truth(2), 2, masks=True)
    with pytest.raises(DataError, match="has no 'segmentation'"):
        score_detections(
            truth, results, category_ids=generated.CATEGORY_IDS, shape=Shape.MASKS, backend=backend
        )  # fmt: skip


def test_lists_of_lvis_that_are_no_lists_are_refused():
    truth = case("fuzz-15-lvis-negatives-no-list", "truth.json")
    with pytest.raises(DataError, match="image 1: 'neg_category_ids' is 1"):
        read_truth(truth, [7], federated=True)
    for image in truth["images"]:
        image["neg_category_ids"] = None
    with pytest.raises(DataError, match="carry no 'neg_category_ids'"):
        read_truth(truth, [7], federated=True)
