"""The ablation command: settings that exist, runs that are kept, and an honest comparison of orders."""

import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from denserc import cli
from denserc.analysis.ablation_tables import REGIONS, TABLES
from denserc.construction import build_dense_model, load_checkpoint, save_checkpoint
from denserc.construction.config import construction_from_config
from denserc.data.datasets.builtin import register_miniature
from denserc.distillation.export import PRODUCT_NAME
from denserc.miniature.demo.stages import Places, prepare_world
from denserc.miniature.write_world import Sizes
from denserc.model_zoo import get_config
from denserc.structures import ConfigurationError
from denserc.tools import ablate
from denserc.tools.downstream import read_configs
from tests.paths import CONFIGS


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


def test_runs_are_stored_by_settings_and_shared_between_tables(base, tmp_path, monkeypatch):
    asked = []

    def fake_run(cfg, *, resume, eval_only, evaluator_factory, memory):
        weights = cfg.DISTILL.SEMANTICS.WEIGHT, cfg.DISTILL.COHERENCE.WEIGHT
        asked.append((cfg.SEED, *weights, cfg.MODEL.CONSTRUCTION.NAME, eval_only))
        score = 50 + cfg.SEED + 100 * cfg.DISTILL.COHERENCE.WEIGHT
        return {"region_classification": dict.fromkeys(REGIONS, score)}

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


def test_downstream_measures_follow_every_row(base, tmp_path, monkeypatch):
    def fake_run(cfg, *, resume, eval_only, evaluator_factory, memory):
        if not eval_only:
            save_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME, build_dense_model(cfg))
        return {"region_classification": dict.fromkeys(REGIONS, 1.0)}

    asked = []

    def fake_measure(name, cfg, checkpoint, seed, output):
        construction = load_checkpoint(checkpoint).encoder.construction
        asked.append((name, seed, construction.num_blocks))
        assert checkpoint.parent == output and cfg is downstream[name]
        return {f"{name}/miniature_ov_coco_val/AP50_novel": 10.0 * construction.num_blocks}

    monkeypatch.setattr(ablate, "run", fake_run)
    monkeypatch.setattr(ablate, "measure_downstream", fake_measure)
    downstream = {"detection": get_config("miniature/fvit")}
    tables = ablate.ablate(base, ["11"], [0], tmp_path, downstream)
    # The undistilled CLIP is not written by a distillation; it has one block, DenseRC three.
    assert asked == [("detection", 0, blocks) for blocks in (1, 3, 3, 3)]
    cell = tables["11"].rows["CLIP, undistilled"]["detection/miniature_ov_coco_val/AP50_novel"]
    assert cell.mean == 10.0
    assert "F-ViT novel AP50" in (tmp_path / "ablation_11.md").read_text()


def test_unusable_measures_are_refused_before_distilling(base, tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "run", None)
    cfg = get_config("miniature/fvit")
    cfg.DATASETS.TEST = ()
    with pytest.raises(ConfigurationError, match=r"'detection' names no set in \['DATASETS.TEST'\]"):
        ablate.ablate(base, ["11"], [0], tmp_path, {"detection": cfg})


def test_a_row_is_distilled_and_measured_downstream(base, tmp_path):
    prepare_world(
        Places(tmp_path, CONFIGS), sizes=Sizes(train=4, val=2, transfer=2, lvis_train=1, lvis_val=1)
    )  # registers the sets
    base.SOLVER.MAX_ITER = base.SOLVER.WARMUP_ITERS = 1
    base.SOLVER.IMS_PER_BATCH = 2
    downstream = read_configs({"dense_segmentation": ""}, encoder=base.MODEL.ENCODER.NAME)
    try:
        tables = ablate.ablate(base, ["12"], [0], tmp_path, downstream)
    finally:
        register_miniature(tmp_path / "absent")
    headings = [column.heading for column in tables["12"].columns]
    assert headings[:6] == ["Boxes", "Thing", "Stuff", "Dense seen", "Dense unseen", "Dense transfer"]
    runs = json.loads((tmp_path / "ablation_12.json").read_text())["runs"]
    # One step changes little: both rows still have the undistilled CLIP's knowledge of stuff.
    assert all(run[0]["dense_segmentation/miniature_semantic_val/mIoU_seen"] > 1 for run in runs.values())
    assert runs["shared"] != runs["per-layer"]
    assert len(list(tmp_path.glob("runs/*/dense_segmentation-*/result.json"))) == 2


def test_the_command_gives_the_measures_their_configs(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr("denserc.tools.ablate.ablate", lambda *given: calls.append(given))
    monkeypatch.setattr("denserc.miniature.demo.stages.prepare_world", lambda places: None)
    words = ["lab", "ablate", "--table", "13", "--output", str(tmp_path), "--downstream", "segmentation"]
    assert cli.main(words) == 0
    assert cli.main([*words, "detection", "--detection-config", "ovcoco_vitb16", "SEED", "3"]) == 0
    (_, _, _, _, first), (base, names, seeds, output, second) = calls
    assert list(first) == ["segmentation"] and first["segmentation"].MODEL.ENCODER.NAME == "DenseRC-Miniature"
    assert (base.SEED, names, seeds, output) == (3, ["13"], [0, 1, 2], tmp_path)
    assert list(second) == ["segmentation", "detection"]
    assert second["detection"].MODEL.ENCODER.NAME == "EVA02-B-16"
    full_size = ["lab", "ablate", "--config-file", "distill/denserc_vitb16", *words[2:]]
    assert cli.main(full_size) == 2
    assert "EVA02-B-16 have no default config: give --segmentation-config" in capsys.readouterr().err
    assert len(calls) == 2
