"""Training on the CPU: what moves, exact resume, the loss of a step, the log, refusals."""

import json
import logging
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from denserc.structures import CheckpointError, ConfigurationError, FingerprintMismatchError
from tests.llava.conftest import llava_config, turns, write_data
from tests.stopping import stop_in_step

pytest.importorskip("transformers", reason="needs denserc[llava]")

from denserc.llava import trainer as training  # noqa: E402
from denserc.llava.engine import run  # noqa: E402


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before, after) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def logged(folder, key: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """Six captions, as stage 1 has them."""
    entries = [{"image": f"{i}.png", "conversations": turns("what is it\n<image>", "red thing")} for i in range(6)]
    return write_data(tmp_path_factory.mktemp("captions"), entries, pictures=6)


def test_stage_1_moves_the_projector_only(tmp_path, start, captions, caplog):
    cfg = llava_config(tmp_path / "out", start, captions, config="llava15_7b_align")
    with caplog.at_level(logging.INFO, "denserc"):
        results = run(cfg)
    before, after = weights(start / "start"), weights(tmp_path / "out" / "model")
    changed = moved(before, after)
    assert changed == {name for name in before if name.startswith("multi_modal_projector.")}
    count = sum(before[name].numel() for name in changed)
    assert f"Learning: {count:,} parameters\n  model.multi_modal_projector.linear_1.weight: " in caplog.text
    assert "\n  vision_tower: " in caplog.text and "\n  language_model: " in caplog.text
    assert results["training"]["steps"] == 6
    losses = logged(tmp_path / "out", "loss")
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert list((tmp_path / "out").glob("events.out.tfevents*"))


def test_stage_2_moves_all_but_the_tower(tmp_path, start, instructions, caplog):
    with caplog.at_level(logging.INFO, "denserc"):
        run(llava_config(tmp_path / "out", start, instructions))
    before = weights(start / "start")
    changed = moved(before, weights(tmp_path / "out" / "model"))
    assert changed == {name for name in before if not name.startswith("vision_tower.")}
    assert "model.language_model.layers.*.self_attn.q_proj.weight (2 tensors): 8,192" in caplog.text
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["use_cache"] is True


def test_adapters_move_the_linear_layers_and_the_projector(tmp_path, start, instructions, caplog):
    """Merged into the weights at the end, so that the folder is a LLaVA like any other."""
    cfg = llava_config(tmp_path / "out", start, instructions, config="llava15_7b_instruct_lora")
    with caplog.at_level(logging.WARNING, "denserc"):
        run(cfg)
    assert "Never compare its figures" in caplog.text
    before = weights(start / "start")
    changed = moved(before, weights(tmp_path / "out" / "model"))
    assert changed == {name for name in before if "_proj." in name or name.startswith("multi_modal_projector.")} - {
        name for name in before if name.startswith("vision_tower.")
    }
    adapter = load_file(tmp_path / "out" / "checkpoint-6" / "adapter_model.safetensors")
    assert adapter and all("vision_tower" not in name for name in adapter)


def test_stage_2_starts_from_stage_1_over_the_same_encoder(tmp_path, start, captions, instructions):
    run(llava_config(tmp_path / "one", start, captions, "SOLVER.MAX_ITER", 1, config="llava15_7b_align"))
    aligned = tmp_path / "one" / "model"
    words = ("MODEL.WEIGHTS", str(aligned), "MODEL.ENCODER.CHECKPOINT", str(start / "denserc.safetensors"))
    run(llava_config(tmp_path / "two", start, instructions, *words, "SOLVER.MAX_ITER", 2))
    changed = moved(weights(aligned), weights(tmp_path / "two" / "model"))
    assert changed and not any(name.startswith("vision_tower.") for name in changed)


def test_bfloat16_is_for_arithmetic_only(tmp_path, start, instructions):
    """Autocast: the loss is close to float32's, and weights stay float32."""
    for name, enabled in (("float32", False), ("bfloat16", True)):
        run(llava_config(tmp_path / name, start, instructions, "SOLVER.MAX_ITER", 1, "SOLVER.AMP.ENABLED", enabled))
    first, second = (logged(tmp_path / name, "loss")[0] for name in ("float32", "bfloat16"))
    assert first != second and first == pytest.approx(second, rel=0.02)
    assert {value.dtype for value in weights(tmp_path / "bfloat16" / "model").values()} == {torch.float32}


def test_a_plain_clip_tower_is_frozen_too(tmp_path, start, instructions):
    """transformers' own class, which knows nothing of being frozen."""
    from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
    from denserc.encoders import build_clip
    from denserc.mllm import export_llava
    from tests import tiny_models  # noqa: F401  (registers the tiny CLIP)

    clip = build_clip("DenseRC-Test-CLIP", random_init=True)
    encoder = DenseEncoder(clip.image, Construction.named("denserc"))
    save_checkpoint(tmp_path / "clip.safetensors", DenseModel(encoder, clip.text, clip.logit_scale))
    export_llava(start / "language_model", tmp_path / "clip.safetensors", tmp_path / "start", plain=True)
    run(llava_config(tmp_path / "out", tmp_path, instructions, "SOLVER.MAX_ITER", 2))
    before = weights(tmp_path / "start")
    assert any(name.startswith("vision_tower.") and "self_attn.q_proj" in name for name in before)
    changed = moved(before, weights(tmp_path / "out" / "model"))
    assert changed == {name for name in before if not name.startswith("vision_tower.")}


@pytest.mark.parametrize("config", ["llava15_7b_instruct", "llava15_7b_instruct_lora"])
def test_a_resumed_run_is_bitwise_equal(tmp_path, start, instructions, monkeypatch, config):
    """Interrupted in the sixth step, in the second epoch; resumed from the checkpoint after the fourth."""
    whole = llava_config(tmp_path / "whole", start, instructions, config=config)
    run(whole)
    cfg = llava_config(tmp_path / "out", start, instructions, config=config)
    step = training.LlavaTrainer.training_step

    def interrupted(self, *arguments):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.LlavaTrainer, "training_step", interrupted)
        run(cfg)
    assert not (tmp_path / "out" / "model").exists()
    (tmp_path / "out" / "checkpoint-5").mkdir()  # writing it was interrupted
    torch.manual_seed(999)
    run(cfg, resume=True)
    assert logged(tmp_path / "out", "iteration")[:7] == [1, 2, 3, 4, 5, 5, 6]
    assert moved(weights(tmp_path / "whole" / "model"), weights(tmp_path / "out" / "model")) == set()


def test_a_finished_run_is_not_continued(tmp_path, start, instructions):
    cfg = llava_config(tmp_path / "out", start, instructions, "LLAVA.EPOCHS", 1.0)
    assert run(cfg)["training"]["steps"] == 5
    trained, lines = weights(tmp_path / "out" / "model"), logged(tmp_path / "out", "iteration")
    assert run(cfg, resume=True) == {"training": {"steps": 5}}
    shutil.rmtree(tmp_path / "out" / "model")  # as if writing it had been interrupted
    run(cfg, resume=True)
    assert moved(trained, weights(tmp_path / "out" / "model")) == set()
    assert logged(tmp_path / "out", "iteration") == lines


def test_another_number_of_steps_is_noted_on_resuming(tmp_path, start, instructions, caplog):
    run(llava_config(tmp_path / "out", start, instructions, "SOLVER.MAX_ITER", 4))
    with caplog.at_level(logging.WARNING, "denserc"):
        assert run(llava_config(tmp_path / "out", start, instructions), resume=True)["training"]["steps"] == 6
    assert "checkpoint-4 is of a training of 4 steps, and this one has 6" in caplog.text


def test_a_checkpoint_of_another_model_is_refused(tmp_path, start, instructions):
    cfg = llava_config(tmp_path / "out", start, instructions, "SOLVER.MAX_ITER", 4)
    run(cfg)
    file = tmp_path / "out" / "checkpoint-4" / "config.json"
    content = json.loads(file.read_text())
    content["text_config"]["num_hidden_layers"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="checkpoint-4 belongs to another model"):
        run(llava_config(tmp_path / "out", start, instructions), resume=True)


@pytest.mark.parametrize("average", ["forward", "tokens"])
def test_the_loss_of_a_step_averages_as_said(tmp_path, start, average):
    """Answers of one and of five tokens, in two passes of a step."""
    entries = [{"conversations": turns("is it", answer)} for answer in ("red", "red blue red blue")]
    data = write_data(tmp_path / "data", entries)
    cfg = llava_config(
        tmp_path / "out",
        start,
        data,
        "SOLVER.MAX_ITER",
        1,
        "LLAVA.LOSS_AVERAGE",
        average,
        "SOLVER.CHECKPOINT_PERIOD",
        0,
    )
    run(cfg)
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from denserc.llava.conversations import read_conversations
    from denserc.llava.templates import TEMPLATES, tokenize

    model = LlavaForConditionalGeneration.from_pretrained(start / "start").eval().requires_grad_(False)
    tokenizer = LlavaProcessor.from_pretrained(start / "start").tokenizer
    sums, counts = [], []
    for conversation in read_conversations([data[0]], data[1]):
        made = tokenize(conversation, TEMPLATES["vicuna_v1"], tokenizer, [])
        logits = model(input_ids=torch.tensor([made.ids])).logits[0, :-1]
        labels = torch.tensor(made.labels[1:])
        sums.append(float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum")))
        counts.append(int((labels != -100).sum()))
    assert counts == [2, 5]
    means = [one / count for one, count in zip(sums, counts, strict=True)]
    expected = {"forward": sum(means) / 2, "tokens": sum(sums) / sum(counts)}
    assert abs(expected["forward"] - expected["tokens"]) > 1e-3
    assert logged(tmp_path / "out", "loss")[0] == pytest.approx(expected[average], abs=2e-5)


def test_text_only_gives_the_projector_a_gradient_of_zero(start):
    from denserc.llava.build import load_llava
    from denserc.llava.options import TrainedParts
    from denserc.llava.parts import select_trained

    model, _ = load_llava(start / "start")
    batch = {"input_ids": torch.tensor([[2, 31, 6, 35]]), "labels": torch.tensor([[-100, 31, 6, 35]])}
    plain = model(**batch).loss
    model = select_trained(model, TrainedParts.LANGUAGE_MODEL).train()
    loss = model(**batch).loss
    loss.backward()
    assert torch.equal(loss, plain)
    projector = list(model.model.multi_modal_projector.parameters())
    assert all(one.grad is not None and not one.grad.any() for one in projector)
    assert model.lm_head.weight.grad.any()
    assert all(one.grad is None for one in model.model.vision_tower.parameters())


def test_cut_sequences_are_counted_and_may_have_no_loss(tmp_path, start, caplog):
    """With room for the question only, every step learns nothing; the loss is 0 and no tensor moves."""
    entries = [{"conversations": turns("is it red", "red")}, {"conversations": turns("is it", "no")}]
    data = write_data(tmp_path / "data", entries)
    template = ("LLAVA.TEMPLATE", "vicuna_v1_without_system", "LLAVA.MAX_LENGTH", 65)
    cfg = llava_config(tmp_path / "out", start, data, *template, "SOLVER.MAX_ITER", 2)
    with caplog.at_level(logging.INFO, "denserc"):
        run(cfg)
    assert logged(tmp_path / "out", "cut_sequences") == [0, 0]
    long = [{"conversations": turns("is " * 70, "red")}, {"conversations": turns("it " * 70, "no")}]
    cfg = llava_config(
        tmp_path / "long", start, write_data(tmp_path / "long_data", long), *template, "SOLVER.MAX_ITER", 2
    )
    with caplog.at_level(logging.INFO, "denserc"):
        run(cfg)
    assert logged(tmp_path / "long", "cut_sequences") == [2, 4]
    assert logged(tmp_path / "long", "loss") == [0.0, 0.0]
    assert "4 sequences cut" in caplog.text
    assert moved(weights(start / "start"), weights(tmp_path / "long" / "model")) == set()


def test_adapters_refuse_weights_that_are_divided(tmp_path, start, instructions, monkeypatch):
    prepare = training.LlavaTrainer.create_accelerator_and_postprocess

    def prepare_as_fsdp(self):
        prepare(self)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(training.LlavaTrainer, "create_accelerator_and_postprocess", prepare_as_fsdp)
    with pytest.raises(ConfigurationError, match="'projector_and_lora', and FSDP or DeepSpeed divides"):
        run(llava_config(tmp_path / "out", start, instructions, config="llava15_7b_instruct_lora"))


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, start, instructions):
    with pytest.raises(FloatingPointError, match="after . steps. A lower SOLVER.BASE_LR"):
        run(llava_config(tmp_path / "out", start, instructions, "SOLVER.BASE_LR", 1e30))


def test_a_new_llava_is_made_of_language_model_and_encoder(tmp_path, start, captions):
    words = ("MODEL.WEIGHTS", "", "MODEL.LLAVA.LANGUAGE_MODEL", str(start / "language_model"), "SOLVER.MAX_ITER", 1)
    encoder = ("MODEL.ENCODER.CHECKPOINT", str(start / "denserc.safetensors"))
    short = ("SOLVER.CHECKPOINT_PERIOD", 0, "MODEL.LLAVA.FEATURES", "dense")
    run(llava_config(tmp_path / "out", start, captions, *words, *encoder, *short, config="llava15_7b_align"))
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert (config["vision_config"]["feature"], config["vision_config"]["image_size"]) == ("dense", 64)
    changed = moved(weights(tmp_path / "out" / "starting_model"), weights(tmp_path / "out" / "model"))
    assert all(name.startswith("multi_modal_projector.") for name in changed)
    with pytest.raises(ConfigurationError, match="MODEL.WEIGHTS is empty, .* Set MODEL.WEIGHTS to a folder"):
        run(llava_config(tmp_path / "out", start, captions, *words, config="llava15_7b_align"))


def test_a_language_model_in_float16_is_trained_in_float32(tmp_path, start, captions):
    """As Vicuna is published. The tower is rounded with it, and still recognized as the encoder's."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    half = tmp_path / "half"
    LlamaForCausalLM.from_pretrained(start / "language_model", dtype=torch.float16).save_pretrained(half)
    AutoTokenizer.from_pretrained(start / "language_model").save_pretrained(half)
    generation = json.loads((half / "generation_config.json").read_text()) | {"temperature": 0.9, "top_p": 0.6}
    (half / "generation_config.json").write_text(json.dumps(generation))  # Vicuna's, which cannot be saved again
    words = ("MODEL.WEIGHTS", "", "MODEL.LLAVA.LANGUAGE_MODEL", str(half), "SOLVER.MAX_ITER", 2)
    encoder = ("MODEL.ENCODER.CHECKPOINT", str(other_encoder(start, tmp_path / "float32.safetensors")))
    run(llava_config(tmp_path / "out", start, captions, *words, *encoder, config="llava15_7b_align"))
    before, after = weights(tmp_path / "out" / "starting_model"), weights(tmp_path / "out" / "model")
    assert {value.dtype for value in before.values()} == {torch.float16}
    assert {value.dtype for value in after.values()} == {torch.float32}
    changed = moved({name: value.float() for name, value in before.items()}, after)
    assert changed and all(name.startswith("multi_modal_projector.") for name in changed)


def other_encoder(start, path):
    """A checkpoint of the same architecture with a tensor that float16 cannot represent."""
    from denserc.construction import DenseModel, load_checkpoint, save_checkpoint

    model = load_checkpoint(start / "denserc.safetensors")
    torch.nn.init.normal_(next(model.encoder.parameters()))
    save_checkpoint(path, DenseModel(model.encoder, model.text, model.logit_scale))
    return path


def edited(start, folder, change):
    """A copy of the starting folder with other weights."""
    from safetensors.torch import save_file

    shutil.copytree(start / "start", folder)
    state = weights(folder)
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_random_tower_is_refused_before_training(tmp_path, start, instructions):
    def randomize(state):
        name = next(name for name in state if name.startswith("vision_tower."))
        state[name] = torch.randn_like(state[name])

    folder = edited(start, tmp_path / "random", randomize)
    with pytest.raises(FingerprintMismatchError, match="random"):
        run(llava_config(tmp_path / "out", start, instructions, "MODEL.WEIGHTS", str(folder)))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_another_encoder_is_refused(tmp_path, start, instructions):
    other = str(other_encoder(start, tmp_path / "other.safetensors"))
    with pytest.raises(FingerprintMismatchError, match="not the encoder of .*other.safetensors"):
        run(llava_config(tmp_path / "out", start, instructions, "MODEL.ENCODER.CHECKPOINT", other))


def test_a_processor_of_another_size_is_refused(tmp_path, start, instructions):
    folder = edited(start, tmp_path / "copy", lambda state: None)
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["patch_size"] = 16
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="image tokens: given 16, the tower needs 64"):
        run(llava_config(tmp_path / "out", start, instructions, "MODEL.WEIGHTS", str(folder)))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("MODEL.WEIGHTS", "nowhere"), CheckpointError, "nowhere cannot be read as a LLaVA"),
        (("LLAVA.MAX_LENGTH", 64), ConfigurationError, "a picture alone has 64 tokens"),
        (("SOLVER.MAX_ITER", 0), ConfigurationError, "are both 0: there is no step"),
        (("SOLVER.IMS_PER_BATCH", 3), ConfigurationError, "cannot be divided among 1 processes times"),
        (("SOLVER.MOMENTUM", 0.5), ConfigurationError, "SOLVER.MOMENTUM is 0.5, but it has no effect"),
        (
            ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "fp16"),
            ConfigurationError,
            "'fp16', but the model runs",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, start, instructions, words, error, message):
    with pytest.raises(error, match=message):
        run(llava_config(tmp_path / "out", start, instructions, *words))


def test_evaluation_only_reads_the_folder_that_it_is_told(tmp_path, start, instructions):
    seen = []

    def evaluate(cfg, folder):
        seen.append(folder)
        return {"pope": {"F1": 1.0}}

    cfg = llava_config(tmp_path / "out", start, instructions)
    assert run(cfg, evaluator=evaluate, eval_only=True) == {"pope": {"F1": 1.0}}
    assert seen == [start / "start"]
    with pytest.raises(CheckpointError, match="out/model does not exist. Train first"):
        run(cfg, evaluator=evaluate, eval_only=True, resume=True)
    with pytest.raises(ConfigurationError, match="--eval-only needs MODEL.WEIGHTS"):
        run(
            llava_config(tmp_path / "out", start, instructions, "MODEL.WEIGHTS", ""), evaluator=evaluate, eval_only=True
        )
    with pytest.raises(ConfigurationError, match="Set LLAVA.TEST.QUESTIONS"):
        run(cfg, eval_only=True)


def test_a_signal_ends_the_step_and_resume_is_exact(tmp_path, start, instructions, monkeypatch):
    """In the second pass of the second step, without periodic checkpoints."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ("SOLVER.CHECKPOINT_PERIOD", 0)
    run(llava_config(whole, start, instructions, *options))
    cfg = llava_config(stopped, start, instructions, *options)
    stop_in_step(monkeypatch, training.LlavaTrainer, "training_step", 4, signal.SIGINT, lambda: run(cfg))
    assert [path.name for path in stopped.glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (stopped / "model").exists()
    assert run(cfg, resume=True)["training"]["steps"] == 6
    assert moved(weights(whole / "model"), weights(stopped / "model")) == set()
