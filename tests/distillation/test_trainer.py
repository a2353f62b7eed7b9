"""One step: gradient scaling, the moving average, the learning rate's rule, and recovery from a failed step."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from denserc.construction import build_dense_model, load_checkpoint
from denserc.distillation import distiller
from denserc.distillation.build import build_trainer
from denserc.distillation.data.batch import DistillationBatch
from denserc.distillation.engine import run
from denserc.distillation.export import PRODUCT_NAME
from denserc.distillation.trainer import StudentCheckpointer, latest_state, read_state
from denserc.structures import CheckpointError, ConfigurationError, weights_digest
from tests.states import assert_same_bits

CPU = torch.device("cpu")


@pytest.fixture()
def make_trainer(make_cfg):
    """A trainer at step 0 with the random miniature, ready for `run_step`."""
    storages = []

    def make(*changes):
        cfg = make_cfg(*changes)
        torch.manual_seed(3)
        trainer = build_trainer(cfg, build_dense_model(cfg), device=CPU, seed=3)
        trainer.storage = EventStorage()
        storages.append(trainer.storage.__enter__())
        return trainer

    yield make
    for storage in reversed(storages):
        storage.__exit__(None, None, None)


def weights(trainer):
    return deepcopy(trainer.distiller.student.state_dict())


def test_scaled_gradients_give_the_same_step(make_trainer):
    """A power of two as the scale changes no bit, clipping included: gradients are clipped after unscaling."""
    clip = ("SOLVER.CLIP_GRADIENTS.ENABLED", True)
    plain, scaled = (make_trainer(*clip, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01) for _ in range(2))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plain.run_step()
    scaled.run_step()
    one, two = weights(plain), weights(scaled)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert plain.storage.latest()["grad_norm"][0] > 0.01  # the clipping did something


def test_float16_step_is_near_the_float32_one(make_trainer):
    plain, half = make_trainer(), make_trainer()
    half.distiller.autocast_dtype, half.scaler = torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**6)
    plain.run_step()
    half.run_step()
    assert half.skipped_steps == 0
    one, two = plain.storage.latest()["grad_norm"][0], half.storage.latest()["grad_norm"][0]
    assert one == pytest.approx(two, rel=0.02) and one != two


def test_overflow_skips_the_step_and_lowers_the_scale(make_trainer, monkeypatch):
    trainer = make_trainer("SOLVER.EMA.DECAY", 0.9)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = weights(trainer)
    trainer.run_step()
    after = weights(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert trainer.skipped_steps == 1 and trainer.scaler.get_scale() == 2.0**126
    assert trainer.images_drawn == 4 and trainer.average.updates == 0
    # The fused optimizer makes its moments before it looks at the gradient; they stay at zero.
    assert not any(moment.any() for state in trainer.optimizer.state.values() for moment in state.values())
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trainer.run_step()
    assert trainer.skipped_steps == 1 and trainer.average.updates == 1
    assert trainer.storage.latest()["skipped_steps"][0] == 1


def test_overflow_without_any_scale_left_stops(make_trainer):
    trainer = make_trainer()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    parameter = trainer.distiller.student.gates.projections[0].weight
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match="gradient is not finite"):
        trainer.run_step()


def test_scale_and_count_come_back_with_the_state(make_trainer, tmp_path):
    one, two, other = make_trainer(), make_trainer(), make_trainer()
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)
    two.scaler = torch.amp.GradScaler("cpu")
    one.run_step()
    StudentCheckpointer(one, str(tmp_path / "state")).save("state_final", iteration=0)
    path = latest_state(tmp_path / "state")
    assert StudentCheckpointer(two).resume(read_state(path), path) == 1
    assert two.scaler.state_dict() == one.scaler.state_dict() and two.skipped_steps == 1
    StudentCheckpointer(other).resume(read_state(path), path)  # another precision is allowed
    assert not other.scaler.is_enabled()


def test_fp16_on_a_cpu_is_refused(make_cfg):
    with pytest.raises(ConfigurationError, match="SOLVER.AMP.PRECISION is 'fp16'.*'cpu'"):
        run(make_cfg("SOLVER.AMP.ENABLED", True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_trains_on_a_gpu(make_cfg):
    cfg = make_cfg("SOLVER.AMP.ENABLED", True, "MODEL.DEVICE", "cuda")
    assert math.isfinite(run(cfg)["distillation"]["total_loss"])
    assert read_state(latest_state(cfg.OUTPUT_DIR))["trainer"]["scaler"]["scale"] > 1


def test_the_average_follows_its_formula(make_trainer):
    trainer = make_trainer("SOLVER.EMA.DECAY", 0.75)
    expected = None
    for step in range(3):
        trainer.iter = step
        trainer.run_step()
        now = weights(trainer)
        expected = now if expected is None else {k: 0.75 * expected[k] + 0.25 * v for k, v in now.items()}
    average = trainer.product_encoder().state_dict()
    assert average.keys() == expected.keys()
    for name, value in average.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(value, now[name]) for name, value in average.items())


def test_export_and_evaluation_of_average_or_student_then_blend(make_cfg, tmp_path):
    seen = {}

    def evaluator(cfg, model):
        seen.setdefault(cfg.OUTPUT_DIR, []).append(weights_digest(model.encoder))
        return {}

    def trained(name, *changes):
        changes = ("SOLVER.EMA.DECAY", 0.5, "TEST.EVAL_PERIOD", 6, *changes)
        cfg = make_cfg("OUTPUT_DIR", str(tmp_path / name), *changes)
        run(cfg, evaluator_factory=evaluator)
        product = load_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME).encoder
        assert seen[cfg.OUTPUT_DIR][-1] == weights_digest(product)
        return product.state_dict(), read_state(latest_state(cfg.OUTPUT_DIR))

    average, state = trained("average")
    student, other = trained("student", "SOLVER.EMA.EXPORT", "trained")
    blended, _ = trained("blend", "DISTILL.EXPORT_BLEND", 0.7)
    torch.manual_seed(3)
    teacher = build_dense_model(make_cfg()).encoder.state_dict()
    for name in average:
        # Both runs are one training; only what leaves it differs.
        flat = name.replace(".", "/")
        assert torch.equal(average[name], state["model"][name]) and torch.equal(student[name], other["model"][name])
        if flat in state["average"]["trained"]:  # all but positions of timm's, which no training changes
            assert torch.equal(student[name], state["average"]["trained"][flat])
            assert torch.equal(average[name], state["average"]["average"][f"module.{flat}"])
        share = average[name] if name.startswith("gates") else 0.7 * average[name] + 0.3 * teacher[name]
        torch.testing.assert_close(blended[name], share, atol=1e-7, rtol=1e-6)
    assert any(not torch.equal(average[name], student[name]) for name in average)


def test_resume_keeps_the_average_bit_for_bit(make_cfg, tmp_path):
    """Six steps at once, and three with a resume for the other three; an average can neither appear nor vanish."""
    straight, halved = (
        make_cfg("OUTPUT_DIR", str(tmp_path / name), "SOLVER.EMA.DECAY", 0.9) for name in ("straight", "halved")
    )
    run(straight)
    run(halved)
    last = latest_state(halved.OUTPUT_DIR)
    content = read_state(last)
    run(make_cfg("OUTPUT_DIR", str(tmp_path / "short"), "SOLVER.EMA.DECAY", 0.9, "DISTILL.KEEP_STATES", 2))
    # The checkpoint after step 3 of the same training, and nothing after it.
    last.unlink()
    (tmp_path / "short" / "state_0000002.pth").rename(last.with_name("state_0000002.pth"))
    last.with_name("last_checkpoint").write_text("state_0000002.pth")
    run(halved, resume=True)
    again = read_state(latest_state(halved.OUTPUT_DIR))
    assert again["iteration"] == content["iteration"] == 5
    assert_same_bits(again, content)
    with pytest.raises(CheckpointError, match="with a moving average"):
        run(make_cfg("OUTPUT_DIR", halved.OUTPUT_DIR), resume=True)
    with pytest.raises(ConfigurationError, match="EMA.DECAY"):
        run(make_cfg("SOLVER.EMA.DECAY", 1.0))


def test_failed_step_leaves_its_batch_and_the_weights(make_trainer, monkeypatch, tmp_path):
    trainer = make_trainer("SOLVER.ACCUMULATE", 2)
    trainer.run_step()
    before, drawn, calls = weights(trainer), trainer.images_drawn, []
    real = distiller.semantics_loss

    def broken(*arguments):
        calls.append(0)
        return real(*arguments) * (math.nan if len(calls) == 2 else 1)

    trainer.iter = 1
    with monkeypatch.context() as patch:
        patch.setattr(distiller, "semantics_loss", broken)
        with pytest.raises(FloatingPointError, match="Step 2, process 0: the loss.*nan_batch_step2_rank0.pt"):
            trainer.run_step()
    after = weights(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before.items())

    saved = torch.load(tmp_path / "output" / "nan_batch_step2_rank0.pt", weights_only=True)
    assert (saved["step"], saved["rank"], saved["images_drawn"], saved["seed"]) == (2, 0, drawn, 3)
    assert saved["draws"] == [[4, 5], [6, 7]]
    assert math.isfinite(saved["losses"][0]["loss_semantics"]) and math.isnan(saved["losses"][1]["loss_semantics"])
    batch = DistillationBatch(**saved["batches"][1])
    assert batch.images.dtype == torch.uint8 and len(batch.paths) == 2 and Path(batch.paths[0]).is_file()
    # The file is enough to compute the losses of that batch again.
    again = trainer.distiller(batch, trainer._regions_per_batch([DistillationBatch(**b) for b in saved["batches"]]))
    assert float(again["loss_coherence"].detach()) == saved["losses"][1]["loss_coherence"]


def test_gradient_that_is_not_finite_stops_too(make_trainer):
    trainer = make_trainer()
    trainer.distiller.student.gates.projections[0].weight.register_hook(lambda gradient: gradient * math.nan)
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match="the gradient is not finite"):
        trainer.run_step()
    after = weights(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(("kind", "accumulate", "clip"), [("full", 1, None), ("selective", 2, 0.01)])
def test_checkpointing_changes_nothing(make_trainer, kind, accumulate, clip):
    changes = ["SOLVER.ACCUMULATE", accumulate]
    if clip:
        changes += ["SOLVER.CLIP_GRADIENTS.ENABLED", True]
        changes += ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", clip]
    key = "DISTILL.GRADIENT_CHECKPOINTING"
    plain, checkpointed = make_trainer(*changes, key, "none"), make_trainer(*changes, key, kind)
    assert checkpointed.distiller.student.gradient_checkpointing.value == kind
    for trainer in (plain, checkpointed):
        trainer.run_step()
    one, two = weights(plain), weights(checkpointed)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_teachers_last_mlp_is_switched_by_the_configuration(make_trainer):
    with_mlp, without = make_trainer(), make_trainer("DISTILL.TEACHER.FINAL_MLP", False)
    crops = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = with_mlp.distiller.teacher.encode_image(
        distiller.normalized(crops, with_mlp.distiller.teacher.pixels), final_mlp=False
    )
    assert torch.equal(without.distiller.teach(crops), expected)
    assert not torch.equal(with_mlp.distiller.teach(crops), expected)


def test_product_records_the_drawn_seed_and_the_origin(make_cfg):
    cfg = make_cfg("SEED", -1, "SOLVER.MAX_ITER", 1)
    run(cfg)
    notes = load_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME).extra
    assert notes["seed"] == read_state(latest_state(cfg.OUTPUT_DIR))["trainer"]["seed"] >= 0
    assert notes["versions"]["torch"] == torch.__version__
    assert notes["config"] == cfg.dump()


@pytest.mark.parametrize(("rule", "rate"), [("none", 1e-3), ("linear", 2.5e-4), ("sqrt", 5e-4)])
def test_learning_rate_of_a_batch_of_four(make_trainer, rule, rate):
    trainer = make_trainer("SOLVER.LR_SCALING", rule, "SOLVER.WARMUP_ITERS", 0)
    trainer.run_step()
    assert trainer.storage.latest()["lr"][0] == pytest.approx(rate)
