"""The ablation command: settings that exist, runs that are kept, and an honest comparison of orders."""

import json
from dataclasses import replace

import pytest
from detectron2.config import CfgNode

from denserc.analysis.ablation_tables import OURS, TABLES, Ablation, Variant
from denserc.construction.config import construction_from_config
from denserc.model_zoo import get_config
from denserc.tools import ablate


@pytest.fixture()
def base() -> CfgNode:
    return get_config("miniature/distill_denserc")


@pytest.mark.parametrize("name", list(TABLES))
def test_every_row_is_a_legal_configuration_of_its_own(base, name):
    table, seen = TABLES[name], set()
    for variant in table.variants:
        cfg = base.clone()
        cfg.merge_from_list(list(variant.settings))
        construction_from_config(cfg)
        assert set(variant.paper) == set(table.measures)
        seen.add(cfg.dump())
    assert len(seen) == len(table.variants)
    assert set(table.measures.values()) <= {*OURS, None}


def test_runs_are_kept_by_their_settings_and_shared_between_tables(base, tmp_path, monkeypatch):
    asked = []

    def fake_run(cfg, *, resume, eval_only, evaluator_factory, memory):
        weights = cfg.DISTILL.SEMANTICS.WEIGHT, cfg.DISTILL.COHERENCE.WEIGHT
        asked.append((cfg.SEED, *weights, cfg.MODEL.CONSTRUCTION.NAME, eval_only))
        score = 50 + cfg.SEED + 100 * cfg.DISTILL.COHERENCE.WEIGHT
        return {"region_classification": dict.fromkeys(OURS, score)}

    monkeypatch.setattr(ablate, "run", fake_run)
    for _ in range(2):
        tables = ablate.ablate(base, ["11", "12"], [0, 1], tmp_path)
    # Four rows and one more a seed: "shared" of Table 12 is the last row of Table 11; the second call asks nothing.
    assert len(asked) == len(set(asked)) == 10
    assert (0, 1.0, 0.025, "clipself", True) in asked and (1, 1.0, 0.025, "denserc_per_layer", False) in asked
    cell = tables["11"].rows["L_semantics"]["boxes_top1"]
    assert (cell.mean, cell.runs) == (50.5, 2)
    written = json.loads((tmp_path / "ablation_12.json").read_text())
    assert written["table"][1]["paper Boxes"] == 76.7
    assert "ordered as in the paper" in (tmp_path / "ablation_12.md").read_text()


def test_orders_are_compared_pair_by_pair_and_seed_by_seed():
    rows = [Variant("a", paper={"P": 1.0}), Variant("b", paper={"P": 2.0}), Variant("c", paper={"P": 2.0})]
    rows = [replace(row, paper={**row.paper, "Q": -row.paper["P"]}) for row in rows]
    ablation = Ablation("t", rows, {"P": "boxes_top1", "Q": None})  # Q is shown and compared with nothing
    runs = {
        "a": [{"boxes_top1": 10.0}, {"boxes_top1": 20.0}],
        "b": [{"boxes_top1": 9.0}, {"boxes_top1": 18.0}],
        "c": [{"boxes_top1": 11.0}, {"boxes_top1": 22.0}],
    }
    remarks = ablate.disagreements(ablation, runs)
    assert remarks[0].startswith("1 of 2 pairs")  # b and c are equal in the paper: no order to agree with
    assert len(remarks) == 2 and "'b' 1.0 above 'a'" in remarks[1] and "-1.5 ± 0.7" in remarks[1]
