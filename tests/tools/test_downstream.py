"""Downstream measures of an encoder: each engine for one step on a few scenes, kept by settings and weights."""

from dataclasses import replace

import pytest
from detectron2.config import CfgNode

from denserc.construction import build_dense_model, save_checkpoint
from denserc.data.datasets.builtin import register_miniature
from denserc.miniature.demo.stages import Places, prepare_world
from denserc.miniature.write_world import Sizes
from denserc.model_zoo import get_config
from denserc.structures import ConfigurationError
from denserc.tools.downstream import TASKS, check_configs, measure_downstream, read_configs
from tests.paths import CONFIGS

SIZES = Sizes(train=4, val=2, transfer=2, lvis_train=1, lvis_val=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An undistilled encoder, with tiny miniature sets registered."""
    places = Places(tmp_path_factory.mktemp("world"), CONFIGS)
    prepare_world(places, sizes=SIZES)
    path = places.output / "denserc.safetensors"
    save_checkpoint(path, build_dense_model(get_config("miniature/distill_denserc")))
    yield path
    register_miniature(places.output / "absent")


def one_step(name: str) -> CfgNode:
    cfg = get_config(TASKS[name].miniature)
    cfg.SOLVER.MAX_ITER = 1
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.STEPS = ()
    return cfg


@pytest.mark.parametrize(
    "name, measures",
    [
        (
            "segmentation",
            ["miniature_semantic_val/mIoU_seen", "miniature_semantic_val/mIoU_unseen",
             "miniature_semantic_transfer_val/mIoU"],
        ),
        (
            "dense_segmentation",
            ["miniature_semantic_val/mIoU_seen", "miniature_semantic_val/mIoU_unseen",
             "miniature_semantic_transfer_val/mIoU"],
        ),
        ("detection", ["miniature_ov_coco_val/AP50_novel"]),
    ],
)  # fmt: skip
def test_every_task_measures_the_sets_of_its_config(name, measures, checkpoint, tmp_path):
    scores = measure_downstream(name, one_step(name), checkpoint, 0, tmp_path)
    assert list(scores) == [f"{name}/{measure}" for measure in measures]
    assert all(0 <= score <= 100 for score in scores.values())
    assert (next(tmp_path.iterdir()) / "model_final.pth").is_file() == TASKS[name].trained


def test_measurements_are_kept_by_settings_seed_and_weights(checkpoint, tmp_path, monkeypatch):
    asked = []

    def fake(cfg, *, evaluator_factory, resume, eval_only):
        assert cfg.MODEL.ENCODER.CHECKPOINT == str(copy) and cfg.is_frozen()
        asked.append((cfg.SEED, cfg.SOLVER.BASE_LR, resume, eval_only))
        return {name: {"ov_coco": {"AP50_novel": 1.5, "AP50_all": 9.0}} for name in cfg.DATASETS.TEST}

    monkeypatch.setitem(TASKS, "detection", replace(TASKS["detection"], run=fake))
    copy, cfg = tmp_path / "copy.safetensors", one_step("detection")
    copy.write_bytes(b"weights")
    expected = {"detection/miniature_ov_coco_val/AP50_novel": 1.5}
    assert measure_downstream("detection", cfg, copy, 0, tmp_path) == expected
    copy = copy.rename(tmp_path / "moved.safetensors")
    assert measure_downstream("detection", cfg, copy, 0, tmp_path) == expected and len(asked) == 1
    measure_downstream("detection", cfg, copy, 1, tmp_path)
    copy.write_bytes(b"other weights")
    measure_downstream("detection", cfg, copy, 1, tmp_path)
    cfg.SOLVER.BASE_LR *= 2
    measure_downstream("detection", cfg, copy, 1, tmp_path)
    assert [seed for seed, *_ in asked] == [0, 1, 1, 1] and asked[3][1] == 2 * asked[2][1]
    assert {(resume, eval_only) for *_, resume, eval_only in asked} == {(True, False)}


def test_a_set_without_the_metrics_is_an_error(tmp_path, monkeypatch):
    def fake(cfg, **_):
        return {name: {"proposals": {"AR": 1.0}} for name in cfg.DATASETS.TEST}

    monkeypatch.setitem(TASKS, "detection", replace(TASKS["detection"], run=fake))
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(ConfigurationError, match=r"AP50_novel.*miniature_ov_coco_val; its evaluator gives \['AR'\]"):
        measure_downstream("detection", one_step("detection"), tmp_path / "x.safetensors", 0, tmp_path)


def test_configs_have_defaults_for_the_miniature_only(tmp_path):
    assert set(read_configs(dict.fromkeys(TASKS, ""), encoder="DenseRC-Miniature")) == set(TASKS)
    with pytest.raises(ConfigurationError, match="EVA02-B-16 have no default config: give --dense-segmentation-config"):
        read_configs({"segmentation": "catseg_vitb16", "dense_segmentation": ""}, encoder="EVA02-B-16")
    file = tmp_path / "own.yaml"
    file.write_text('_BASE_: catseg_vitb16\nDATASETS: {TEST: ["ade20k_150_test_sem_seg"]}\n')
    cfg = read_configs({"segmentation": str(file)}, encoder="EVA02-B-16")["segmentation"]
    assert cfg.MODEL.CATSEG.INPUT_SIZE == [384, 384] and list(cfg.DATASETS.TEST) == ["ade20k_150_test_sem_seg"]


def test_unknown_measures_and_absent_sets_are_errors():
    with pytest.raises(ConfigurationError, match="'panoptic' is not a downstream measure; known are"):
        check_configs({"panoptic": one_step("detection")})
    cfg = one_step("segmentation")
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigurationError, match="DATASETS.TRAIN"):
        check_configs({"segmentation": cfg})
