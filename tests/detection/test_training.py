"""Options of the detector's training: accumulation, precision, average, best checkpoint, steps gone wrong."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from denserc.detection.data import training_mapper
from denserc.detection.modeling.roi_heads import FViTROIHeads
from denserc.openvocab import engine
from denserc.openvocab.checkpoint import BestCheckpoint, ModelCheckpointer
from denserc.openvocab.loader import build_train_loader
from denserc.structures import CheckpointError, ConfigurationError
from tests.detection.squares import NOTHING_DRAWN, Recorder, assert_same_weights, saved, train


@pytest.fixture()
def first_step(config):
    """make(**changes) -> (losses, gradients) of the first step."""

    def make(**changes):
        cfg = config(**NOTHING_DRAWN, **changes)
        torch.manual_seed(0)
        model = build_model(cfg).train()
        trainer = engine.build_trainer(cfg, model, seed=0)
        # Of seed 1, as the image with one square less is not among its first four.
        trainer.data_loader = build_train_loader(cfg, training_mapper(cfg), start=0, seed=1)
        with EventStorage() as trainer.storage:
            trainer.run_step()
        losses = {name: value for name, (value, _) in trainer.storage.latest().items() if "loss" in name}
        return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    return make


def test_accumulated_batches_equal_the_large_batch(first_step):
    (losses, whole), (half_losses, halves) = first_step(), first_step(SOLVER__ACCUMULATE=2)
    assert losses == pytest.approx(half_losses, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, halves[name], atol=1e-6, rtol=1e-4, msg=name)


def test_a_batch_that_cannot_be_divided_is_refused(config):
    with pytest.raises(ConfigurationError, match="SOLVER.IMS_PER_BATCH = 2 .* SOLVER.ACCUMULATE = 4"):
        train(config(SOLVER__ACCUMULATE=4))


@pytest.fixture()
def resume_from(config, tmp_path):
    """make(cfg, checkpoint, **changes) -> a configuration whose folder holds that checkpoint of a run as its last."""

    def make(cfg, checkpoint, **changes):
        resumed = config(OUTPUT_DIR=str(tmp_path / "resumed"), **changes)
        for name in (checkpoint, "model_best"):
            if (Path(cfg.OUTPUT_DIR) / f"{name}.pth").is_file():
                shutil.copy(Path(cfg.OUTPUT_DIR) / f"{name}.pth", resumed.OUTPUT_DIR)
        (Path(resumed.OUTPUT_DIR) / "last_checkpoint").write_text(f"{checkpoint}.pth")
        return resumed

    return make


def test_average_is_evaluated_saved_and_resumed_bitwise(config, resume_from):
    average = {"SOLVER__EMA__DECAY": 0.5}
    cfg = config(**average, TEST__EVAL_PERIOD=3)
    results = train(cfg)
    final = saved(cfg)
    trained = {name.replace("/", "."): value for name, value in final["average"]["trained"].items()}
    assert trained and all(
        not torch.equal(value, final["model"][name]) for name, value in trained.items() if "conv" in name
    )
    # The training itself does not know of the average.
    plain = config(OUTPUT_DIR=cfg.OUTPUT_DIR + "_plain")
    assert train(plain) != results
    without = saved(plain)["model"]
    assert all(torch.equal(value, without[name]) for name, value in trained.items())
    # Evaluated by path, the file gives what the training reported.
    by_path = config(
        MODEL__WEIGHTS=str(Path(cfg.OUTPUT_DIR) / "model_final.pth"), OUTPUT_DIR=cfg.OUTPUT_DIR + "_by_path"
    )
    assert train(by_path, eval_only=True) == results

    resumed = resume_from(cfg, "model_0000001", **average)
    assert train(resumed, resume=True) == results
    again = saved(resumed)
    assert_same_weights(final["model"], again["model"])
    assert_same_weights(final["average"]["trained"], again["average"]["trained"])
    with pytest.raises(CheckpointError, match="with a moving average"):
        train(resume_from(cfg, "model_0000001"), resume=True)
    with pytest.raises(CheckpointError, match="without a moving average"):
        train(resume_from(plain, "model_0000001", **average), resume=True)


def scored(values):
    """An evaluator whose novel AP50 is the next of the values."""
    remaining = iter(values)

    class Scored(Recorder):
        def evaluate(self):
            return {"ov_coco": {"AP50_all": 1.0, "AP50_novel": next(remaining)}}

    return Scored


def test_the_best_checkpoint_is_that_of_the_best_novel_ap(config, resume_from):
    every = {"TEST__EVAL_PERIOD": 1, "SOLVER__CHECKPOINT_PERIOD": 1}
    cfg = config(**every)
    train(cfg, evaluator_factory=scored([math.nan, 30.0, 20.0, math.nan]))
    best = saved(cfg, "model_best")
    assert best["best"] == {"metric": "ov_coco/AP50_novel", "value": 30.0, "step": 2}
    assert_same_weights(best["model"], saved(cfg, "model_0000001")["model"])
    assert "trainer" not in best and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_final.pth"

    resumed = resume_from(cfg, "model_0000002", **every)
    train(resumed, evaluator_factory=scored([29.0]), resume=True)
    assert saved(resumed, "model_best")["best"]["step"] == 2
    resumed = resume_from(cfg, "model_0000002", **every)
    train(resumed, evaluator_factory=scored([31.0]), resume=True)
    assert saved(resumed, "model_best")["best"] == {"metric": "ov_coco/AP50_novel", "value": 31.0, "step": 4}


def test_the_metric_of_the_best_is_found_or_named(config, tmp_path, caplog):
    checkpointer = ModelCheckpointer(build_model(config()), str(tmp_path))

    def decided(metric, *results):
        best = BestCheckpoint(checkpointer, metric, resumed=False)
        for step, one in enumerate(results):
            best.update(one, step)
        return best.metric, best.value

    lvis = {"ov_lvis": {"AP_rare": 1.0, "AP_all": 2.0}, "ov_lvis_masks": {"AP_rare": 3.0, "AP_all": 4.0}}
    assert decided("auto", lvis) == ("ov_lvis_masks/AP_rare", 3.0)
    assert decided("auto", {"ov_lvis": lvis["ov_lvis"]}) == ("ov_lvis/AP_rare", 1.0)
    assert decided("auto", {"coco": {"AP_all": 5.0, "AP50_all": 9.0}}) == ("coco/AP_all", 5.0)
    assert decided("ov_lvis/AP_all", lvis) == ("ov_lvis/AP_all", 2.0)
    assert decided("auto", {}, {"other": {"x": 1.0}}) == ("auto", -math.inf)
    assert "set TEST.BEST" in caplog.text
    with pytest.raises(ConfigurationError, match="TEST.BEST is 'ov_lvis/AP'.*ov_lvis/AP_all"):
        decided("ov_lvis/AP", lvis)


def test_a_step_that_is_no_number_leaves_its_batch(config, monkeypatch):
    real, calls = FViTROIHeads.box_losses, []

    def box_losses(self, *arguments):
        calls.append(1)
        losses = real(self, *arguments)
        return {**losses, "loss_cls": losses["loss_cls"] * (math.nan if len(calls) > 2 else 1.0)}

    monkeypatch.setattr(FViTROIHeads, "box_losses", box_losses)
    cfg = config()
    with pytest.raises(FloatingPointError, match="Step 3, process 0: the loss is not finite"):
        train(cfg)
    content = torch.load(Path(cfg.OUTPUT_DIR) / "nan_batch_step3_rank0.pt", weights_only=True)
    assert content["draws"] == [[4, 5]] and math.isnan(content["losses"][0]["loss_cls"])
    for one in content["batches"][0]:
        assert one["image"].dtype is torch.uint8 and len(one["gt_boxes"]) == len(one["gt_classes"])
        assert Path(one["file_name"]).is_file()
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000001.pth"


@pytest.mark.parametrize(
    "changes",
    [
        {"MODEL__FVIT__BACKBONE_PRECISION": "bf16"},
        {"SOLVER__AMP__ENABLED": True, "SOLVER__AMP__PRECISION": "bf16"},
    ],
)
def test_a_detector_trains_and_tests_with(config, changes):
    results = train(config(**changes, SOLVER__MAX_ITER=2))
    assert math.isfinite(results["squares_val"]["squares"]["total"])


def test_fp16_is_refused_on_a_cpu(config):
    with pytest.raises(ConfigurationError, match="SOLVER.AMP.PRECISION is 'fp16'.*'cpu'"):
        train(config(SOLVER__AMP__ENABLED=True))
    with pytest.raises(ConfigurationError, match="MODEL.FVIT.BACKBONE_PRECISION is 'fp16'.*'cpu'"):
        build_model(config(MODEL__FVIT__BACKBONE_PRECISION="fp16"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_trains_on_a_gpu(config):
    half = {"SOLVER__AMP__ENABLED": True, "MODEL__FVIT__BACKBONE_PRECISION": "fp16"}
    cfg = config(**half, MODEL__DEVICE="cuda", SOLVER__MAX_ITER=3)
    assert math.isfinite(train(cfg)["squares_val"]["squares"]["total"])
    assert saved(cfg)["trainer"]["scaler"]["scale"] > 0


def test_maps_of_a_bf16_encoder_are_float32_and_near(config):
    """Within 2 % of the float32 maps' norm, with the encoder's own weights untouched, under any autocast around."""
    torch.manual_seed(0)
    exact = build_model(config())
    torch.manual_seed(0)
    coarse = build_model(config(MODEL__FVIT__BACKBONE_PRECISION="bf16"))
    assert_same_weights(exact.state_dict(), coarse.state_dict())
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        dense, maps = exact.eval().backbone._encode(image)
    dense_16, maps_16 = coarse.eval().backbone._encode(image)
    for one, other in zip([dense, *maps], [dense_16, *maps_16], strict=True):
        assert other.dtype is torch.float32 or other is dense_16
        difference = (one.float() - other.float()).norm() / one.float().norm()
        assert 0 < difference < 0.02
    assert all(p.dtype is torch.float32 for p in coarse.parameters())


def test_the_scale_of_fp16_is_in_the_checkpoint(config):
    cfg = config()
    model = build_model(cfg)
    trainer, other = engine.build_trainer(cfg, model, seed=0), engine.build_trainer(cfg, model, seed=0)
    trainer.scaler, other.scaler = (torch.amp.GradScaler("cpu", init_scale=2.0**k) for k in (3, 9))
    trainer.iter, trainer.skipped_steps = 5, 2
    other.load_state_dict(trainer.state_dict())
    assert other.scaler.get_scale() == 8.0 and other.skipped_steps == 2 and other.iter == 5
