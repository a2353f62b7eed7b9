"""The whole stage on the miniature's architecture: product, resume, accumulation, evaluation."""

import json
import signal
from pathlib import Path

import pytest
import torch

from denserc.construction import build_dense_model, load_checkpoint
from denserc.distillation.engine import run
from denserc.distillation.export import PRODUCT_NAME, blend
from denserc.distillation.trainer import latest_state, read_state
from denserc.engine import StepTrainer
from denserc.structures import CheckpointError, ConfigurationError, DataError, WeightsMismatchError, weights_digest
from tests.states import assert_same_bits
from tests.stopping import stop_in_step


def product_digest(folder) -> str:
    return weights_digest(load_checkpoint(Path(folder) / PRODUCT_NAME).encoder)


class Stop(Exception):
    """Exception that ends a training without cleanup."""


def test_resume_continues_bit_identically(make_cfg, tmp_path, monkeypatch):
    """Six steps = four steps, a crash that loses one of them, and a resume from the state after step 3;
    ten images in batches of four put the cut into the middle of an epoch."""
    from denserc.distillation.trainer import DistillationTrainer

    plain_step = DistillationTrainer.run_step

    draws = []

    def step(trainer):
        draws.append(torch.rand(2).tolist())  # as dropout would
        plain_step(trainer)

    monkeypatch.setattr(DistillationTrainer, "run_step", step)
    straight = make_cfg("OUTPUT_DIR", str(tmp_path / "straight"))
    results = run(straight)

    crashed = make_cfg("OUTPUT_DIR", str(tmp_path / "crashed"))

    def crash(trainer):
        if trainer.iter == 4:
            raise Stop
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "run_step", crash)
        with pytest.raises(Stop):
            run(crashed)
    assert read_state(latest_state(crashed.OUTPUT_DIR))["iteration"] == 2
    torch.manual_seed(999)  # nothing of the old process is left
    resumed = run(crashed, resume=True)

    assert resumed == results
    one, two = (read_state(latest_state(cfg.OUTPUT_DIR)) for cfg in (straight, crashed))
    assert one["iteration"] == two["iteration"] == 5
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())
    first, second = (state["trainer"]["optimizer"]["state"] for state in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name][key]) for name in first for key, value in first[name].items())
    assert draws[:4] == draws[6:10] and draws[3:6] == draws[-3:]  # a step's randomness depends only on its number
    assert product_digest(straight.OUTPUT_DIR) == product_digest(crashed.OUTPUT_DIR)
    # Nothing left to do: the same product and no error.
    run(crashed, resume=True)
    assert product_digest(straight.OUTPUT_DIR) == product_digest(crashed.OUTPUT_DIR)


def test_the_product_is_the_trained_student(make_cfg):
    cfg = make_cfg()
    results = run(cfg)
    assert results["distillation"]["images"] == 24
    product = load_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME)
    student = read_state(latest_state(cfg.OUTPUT_DIR))["model"]
    assert all(torch.equal(value, student[name]) for name, value in product.encoder.state_dict().items())
    assert product.encoder.construction.to_dict()["module"] == "hsg"
    assert product.extra["steps"] == 6 and product.extra["export_blend"] == 1.0
    assert product.encoder.gates.projections[0].weight.abs().max() > 0
    lines = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    assert {"loss_semantics", "loss_coherence", "total_loss", "lr"} <= set(lines[-1])
    assert list(Path(cfg.OUTPUT_DIR).glob("events.out.tfevents.*"))


def test_the_blend_is_in_the_product_and_never_in_the_state(make_cfg, tmp_path):
    plain, blended = make_cfg("OUTPUT_DIR", str(tmp_path / "1")), make_cfg("OUTPUT_DIR", str(tmp_path / "2"))
    blended.DISTILL.EXPORT_BLEND = 0.7
    run(plain)
    run(blended)
    student, other = (read_state(latest_state(cfg.OUTPUT_DIR))["model"] for cfg in (plain, blended))
    assert all(torch.equal(value, other[name]) for name, value in student.items())
    torch.manual_seed(3)
    teacher = build_dense_model(plain).encoder.state_dict()
    for name, value in load_checkpoint(Path(blended.OUTPUT_DIR) / PRODUCT_NAME).encoder.state_dict().items():
        expected = student[name]
        if not name.startswith("gates"):
            expected = 0.7 * expected + 0.3 * teacher[name]
        torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-6)


def test_accumulated_batches_equal_a_large_one(make_cfg, tmp_path):
    whole, parts = make_cfg("OUTPUT_DIR", str(tmp_path / "1")), make_cfg("OUTPUT_DIR", str(tmp_path / "2"))
    parts.SOLVER.ACCUMULATE = 4
    one, two = run(whole)["distillation"], run(parts)["distillation"]
    assert one["images"] == two["images"]
    assert one["loss_semantics"] == pytest.approx(two["loss_semantics"], rel=1e-4)
    assert one["loss_coherence"] == pytest.approx(two["loss_coherence"], rel=1e-4)
    parts.SOLVER.ACCUMULATE = 3
    with pytest.raises(ConfigurationError, match="cannot be divided"):
        run(parts)


@pytest.mark.parametrize("construction", ["clipself", "declip", "denserc_per_layer"])
def test_other_constructions_train(make_cfg, construction):
    cfg = make_cfg("MODEL.CONSTRUCTION.NAME", construction, "SOLVER.MAX_ITER", 2, "DISTILL.TRAINABLE", "blocks")
    cfg.DISTILL.COHERENCE.WEIGHT = 0.0
    cfg.MODEL.ENCODER.POOLED_MAP = "normalized"
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    assert run(cfg)["distillation"].keys() == {"steps", "images", "total_loss", "loss_semantics"}


def test_evaluation_is_the_callers(make_cfg):
    cfg = make_cfg("TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 4)
    seen = []

    def evaluator(given_cfg, model):
        assert given_cfg is cfg and not model.encoder.training and not torch.is_grad_enabled()
        torch.rand(3)
        seen.append(weights_digest(model.encoder))
        return {"region_classification": {"boxes_top1": float(len(seen))}}

    results = run(cfg, evaluator_factory=evaluator)
    assert results["region_classification"] == {"boxes_top1": 2.0}
    assert len(seen) == 2 and seen[1] == product_digest(cfg.OUTPUT_DIR)
    lines = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    scores = {line["iteration"]: line.get("region_classification/boxes_top1") for line in lines}
    assert scores[1] == 1.0 and scores[3] == 2.0  # after the second step, and of the product

    run(cfg, eval_only=True, resume=True, evaluator_factory=evaluator)
    assert seen[2] == seen[1]
    run(cfg, eval_only=True, evaluator_factory=evaluator)
    assert seen[3] not in seen[:3]
    with pytest.raises(ConfigurationError, match="evaluator_factory"):
        run(cfg, eval_only=True)
    cfg.OUTPUT_DIR += "_empty"
    with pytest.raises(CheckpointError, match="Train first"):
        run(cfg, eval_only=True, resume=True, evaluator_factory=evaluator)


def test_a_resume_with_another_teacher_is_refused(make_cfg):
    cfg = make_cfg("SOLVER.MAX_ITER", 3)
    run(cfg)
    path = latest_state(cfg.OUTPUT_DIR)
    content = read_state(path)
    content["trainer"]["seed"] = 4  # other random weights
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="another teacher"):
        run(cfg, resume=True)


def test_student_from_a_checkpoint_keeps_its_clip_as_teacher(make_cfg):
    cfg = make_cfg("SOLVER.MAX_ITER", 1)
    run(cfg)
    cfg.MODEL.ENCODER.CHECKPOINT = str(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME)
    with pytest.raises(ConfigurationError, match="RANDOM_INIT would make it a random one"):
        run(cfg)


def test_loss_that_is_not_finite_stops_before_the_step(make_cfg, monkeypatch):
    from denserc.distillation import distiller

    monkeypatch.setattr(distiller, "semantics_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    cfg = make_cfg()
    with pytest.raises(FloatingPointError):
        run(cfg)
    assert latest_state(cfg.OUTPUT_DIR) is None


def test_too_many_unreadable_images_stop_the_training(make_cfg, image_folder):
    for name in ("5.png", "7.png"):
        (image_folder / name).write_bytes(b"")
    with pytest.raises(DataError, match="2 of 10 images cannot be read"):
        run(make_cfg())
    run(make_cfg("DATALOADER.MAX_UNREADABLE", 0.2, "SOLVER.MAX_ITER", 3))


def test_blend_refuses_another_architecture(make_cfg):
    model = build_dense_model(make_cfg())
    with pytest.raises(WeightsMismatchError, match="EXPORT_BLEND"):
        blend(model.encoder, torch.nn.Linear(2, 2), 0.5)
    with pytest.raises(ConfigurationError, match="0..1"):
        blend(model.encoder, model.encoder.tower, 1.5)


def test_the_packaged_miniature_learns(make_cfg):
    """With the packaged weights both losses fall within a few steps, and the product is no longer the CLIP."""
    cfg = make_cfg("MODEL.ENCODER.RANDOM_INIT", False, "DISTILL.LOG_PERIOD", 1, "SOLVER.MAX_ITER", 16)
    cfg.merge_from_list(
        [
            "SOLVER.AMP.ENABLED",
            True,
            "SOLVER.AMP.PRECISION",
            "bf16",
            "DISTILL.CROP_SIZE",
            64,
            "DISTILL.COHERENCE.WEIGHT",
            1.0,
        ]
    )
    run(cfg)
    lines = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    for name in ("loss_semantics", "loss_coherence"):
        losses = [line[name] for line in lines]
        assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), name
    assert product_digest(cfg.OUTPUT_DIR) != weights_digest(build_dense_model(cfg).encoder)


def test_the_gates_rate_reaches_the_step(make_cfg, tmp_path):
    """After one step of AdamW an entry has moved by about the rate, whatever its gradient."""
    moved = []
    for rate in (1.0, 10.0):
        cfg = make_cfg("DISTILL.GATE_RATE", rate, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(tmp_path / str(rate)))
        run(cfg)
        gates = load_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME).encoder.gates
        moved.append(gates.projections[0].weight.abs().median().item())
    assert moved[1] == pytest.approx(10 * moved[0], rel=1e-2)


@pytest.mark.parametrize("step", [2, 6])
def test_a_signal_ends_the_step_and_resume_is_exact(make_cfg, tmp_path, monkeypatch, step):
    """In the middle, and in the last step, after which only the product is missing."""
    whole, stopped = (make_cfg("OUTPUT_DIR", str(tmp_path / name)) for name in ("whole", "stopped"))
    results = run(whole)
    stop_in_step(monkeypatch, StepTrainer, "_update_weights", step, signal.SIGTERM, lambda: run(stopped))
    assert not (tmp_path / "stopped" / PRODUCT_NAME).exists()
    assert run(stopped, resume=True)["distillation"]["images"] == results["distillation"]["images"]
    assert_same_bits(*(read_state(latest_state(cfg.OUTPUT_DIR)) for cfg in (whole, stopped)))
    assert product_digest(tmp_path / "whole") == product_digest(tmp_path / "stopped")
