"""Every stage of CAT-Seg against recordings of the published modules: forward, loss, gradients, step, evaluation.

Where the recordings are not beside the repository, the part in tests/fixtures/catseg is compared.
"""

import numpy as np
import pytest
import torch
from detectron2.solver import build_lr_scheduler
from torch import nn

from denserc.engine.solver import build_optimizer
from denserc.segmentation.convert import original_to_ours
from denserc.segmentation.modeling.aggregation import DROPPED, Aggregator
from denserc.segmentation.modeling.options import ClassAttentionKind
from tests.segmentation.recorded import (
    Stages,
    aggregator_options,
    evaluation_pass,
    normalized,
    recorded_config,
    training_pass,
)

CLIP = "sem_seg_head.predictor.clip_model."
AGGREGATOR = "sem_seg_head.predictor.transformer."
APART = {"q_proj_weight": 0, "k_proj_weight": 1, "v_proj_weight": 2}
EVALUATIONS = ("eval_plain", "eval_slide", "eval_slide_many")


def needs(recordings, file):
    if not recordings.file(file):
        pytest.skip(f"{file}.npz is not in {recordings.folder}")


def ours(model, name) -> nn.Parameter:
    """Our parameter for a tensor of the published CAT-Seg."""
    layer, _, part = name.rpartition(".")
    if part not in APART:
        return model.get_parameter(original_to_ours(name))
    layer = layer.removeprefix(CLIP)
    tower = model.encoder.tower if layer.startswith("visual.") else model.text_tower.text
    return getattr(tower.get_submodule(layer).parametrizations.in_proj_weight, f"original{APART[part]}")


def unused_query(name, recordings) -> bool:
    """The image tower's last q: the dense last block does not use it, and it does not learn here."""
    last = recordings.config["clip"]["v_layers"] - 1
    return name == f"{CLIP}visual.transformer.resblocks.{last}.attn.q_proj_weight"


@pytest.fixture()
def trained(make_recorded, recordings):
    """A model after the backward pass of the recorded batch, its loss and stages."""
    model = make_recorded()
    loss, stages = training_pass(model, recordings)
    loss.backward()
    return model, loss, stages


def test_training_stages(trained, recordings):
    _, loss, stages = trained
    compared = 0
    for name in recordings.file("train"):
        if not name.startswith("grad:"):
            shape = recordings.manifest["train.npz"][name]["shape"]
            given = loss if name == "loss" else stages.shaped(name, shape)
            assert recordings.difference("train", name, given) <= 1, name
            compared += 1
    assert compared >= 3


def test_gradients(trained, recordings):
    model, _, _ = trained
    for name in recordings.file("train"):
        if name.startswith("grad:"):
            shape = recordings.manifest["train.npz"][name]["shape"]
            gradient = ours(model, name.removeprefix("grad:")).grad.reshape(shape)
            assert recordings.difference("train", name, gradient) <= 1, name
    norms = recordings.json("training")["gradient_norms_f32_f64"]
    for name, (single, double) in norms.items():
        if unused_query(name, recordings):
            assert single == double == 0 and ours(model, name).grad is None
        else:
            # The k biases of the Swin blocks have no gradient but noise.
            assert float(ours(model, name).grad.norm()) == pytest.approx(double, rel=2e-3, abs=1e-8), name


def test_what_is_trained_and_frozen(make_recorded, recordings):
    model = make_recorded()
    training = recordings.json("training")
    names = [name for name in training["gradient_norms_f32_f64"] if not unused_query(name, recordings)]
    assert {id(ours(model, name)) for name in names} == {id(p) for p in model.parameters() if p.requires_grad}
    frozen = [name for name in training["frozen"] if name.rpartition(".")[2] in APART]
    assert frozen and not any(ours(model, name).requires_grad for name in frozen)


def test_learning_rates_weight_decay_and_schedule(make_recorded, recordings, recorded_encoder):
    model, training = make_recorded(), recordings.json("training")
    cfg = recorded_config(recordings.config, recorded_encoder)
    optimizer = build_optimizer(cfg, model)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for name, expected in training["groups_lr_weight_decay"].items():
        if not unused_query(name, recordings):
            assert found[id(ours(model, name))] == pytest.approx(tuple(expected)), name
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    scheduler = build_lr_scheduler(cfg, optimizer)
    group = next(
        g for g in optimizer.param_groups if any(p is ours(model, training["lr_group_0_name"]) for p in g["params"])
    )
    place = optimizer.param_groups.index(group)
    for iteration, rate in training["lr_of_group_0_at_iteration"].items():
        scheduler.last_epoch = int(iteration)
        assert scheduler.get_lr()[place] == pytest.approx(rate, rel=1e-6, abs=1e-18)


def test_one_step_of_the_optimizer(trained, recordings, recorded_encoder):
    model, loss, _ = trained
    training = recordings.json("training")
    cfg = recorded_config(recordings.config, recorded_encoder)
    assert float(loss) == pytest.approx(training["loss_before"], abs=2e-6)
    learning = [p for p in model.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(learning, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE)
    assert float(norm) == pytest.approx(training["total_gradient_norm_f64"], rel=1e-4)
    for name, expected in training["gradient_norms_after_clipping"].items():
        if not unused_query(name, recordings):
            assert float(ours(model, name).grad.norm()) == pytest.approx(expected, rel=2e-3, abs=1e-9), name
    build_optimizer(cfg, model).step()
    for name, recorded in recordings.file("step").items():
        moved = ours(model, name.removeprefix("after:")).detach().reshape(recorded.shape).numpy()
        entry = recordings.manifest["step.npz"][name]
        # Adam's first step is the sign of the gradient: entries whose gradient is noise are unstable.
        assert (np.abs(moved - recorded) <= entry["atol"]).mean() >= 0.99, name
    again, _ = training_pass(model, recordings)
    assert float(again) == pytest.approx(training["loss_after_one_step"], abs=2e-4)


@pytest.mark.parametrize("file", EVALUATIONS)
def test_evaluation(make_recorded, recordings, file):
    needs(recordings, file)
    _, scores, stages = evaluation_pass(make_recorded, recordings, file)
    entries = recordings.manifest[f"{file}.npz"]
    for name in recordings.file(file):
        if name in ("labels", "kept"):
            continue
        given = scores if name == "sem_seg" else stages.shaped(name, entries[name]["shape"])
        assert recordings.difference(file, name, given) <= 1, name
    if "kept" in recordings.file(file):
        kept = (stages["logits"] > DROPPED).amax(dim=(2, 3))
        assert torch.equal(kept, recordings.tensor(file, "kept").bool())
    labels = recordings.tensor(file, "labels").long()
    differing = scores.argmax(dim=0) != labels
    top = scores.topk(2, dim=0).values
    assert not (differing & (top[0] - top[1] > 2e-4)).any() and differing.float().mean() < 0.01


@pytest.mark.parametrize("file", EVALUATIONS)
def test_labels_are_the_best_scores(make_recorded, recordings, file):
    """The streamed maximum over chunks of classes, and the argmax of all scores."""
    needs(recordings, file)
    _, scores, _ = evaluation_pass(make_recorded, recordings, file)
    _, labels, _ = evaluation_pass(make_recorded, recordings, file, "MODEL.CATSEG.OUTPUT", "labels")
    assert labels.dtype == torch.int64 and torch.equal(labels, scores.argmax(dim=0))


def test_chunks_change_nothing(make_recorded, recordings):
    _, whole, _ = evaluation_pass(make_recorded, recordings, "eval_slide_many", "MODEL.CATSEG.CHUNK", 10_000)
    _, parts, _ = evaluation_pass(make_recorded, recordings, "eval_slide_many", "MODEL.CATSEG.CHUNK", 3)
    torch.testing.assert_close(parts, whole, atol=2e-6, rtol=0)


def test_window_inputs(make_recorded, recordings):
    needs(recordings, "window_inputs")
    model, entry = make_recorded(), recordings.json("window_inputs")
    image = normalized(model, recordings.tensor("window_inputs", "picture"))
    views = torch.stack(model.views.cut(image))
    views = torch.nn.functional.interpolate(views, size=entry["shape"][2:], mode="bilinear", align_corners=False)
    assert list(views.shape) == entry["shape"]
    sampled = views[tuple(slice(None, None, step) for step in entry["sample"])]
    recorded = recordings.tensor("window_inputs", "tower_input")
    torch.testing.assert_close(sampled, recorded, atol=entry["atol"], rtol=0)
    assert float(views.mean()) == pytest.approx(entry["mean"], abs=1e-4)


def variant(recordings, case) -> Aggregator:
    """The aggregator of a recorded variant, with its weights."""
    settings = recordings.json("variants")[case]
    options = aggregator_options(recordings.config["head"])
    options |= {"num_prompts": settings["prompts"], "class_limit": settings["pad_len"]}
    options |= {"training_pooling": settings["pooling"], "test_pooling": settings["pooling"]}
    aggregator = Aggregator(**options, attention=ClassAttentionKind(settings["attention"]))
    prefix = f"{case}:"
    state = {}
    for key in recordings.file("variants_weights"):
        if key.startswith(prefix) and not key.endswith("attn_mask"):
            value = recordings.tensor("variants_weights", key)
            name = original_to_ours(AGGREGATOR + key.removeprefix(prefix)).removeprefix("aggregator.")
            state[name] = value.flatten() if ".padding_" in name else value
    aggregator.load_state_dict(state, strict=True)
    return aggregator.eval()


@pytest.mark.parametrize("case", ["prompts3", "nopad", "topk", "full"])
@torch.no_grad()
def test_variants_of_the_aggregator(recordings, case):
    needs(recordings, "variants")
    aggregator = variant(recordings, case)
    image, *guidance = (recordings.tensor("variants_inputs", name) for name in ("image", "guidance1", "guidance2"))
    texts = recordings.tensor("variants_inputs", f"{case}_text")  # (B, T, P, E); each image may have its own
    found = []
    for i, text in enumerate(texts):
        with AggregatorStages(aggregator) as stages:
            aggregator(image[i : i + 1], [one[i : i + 1] for one in guidance], text)
        found.append(stages)
    for name in recordings.file("variants"):
        if name.startswith(f"{case}:"):
            stage = name.removeprefix(f"{case}:")
            if stage == "kept":
                kept = torch.cat([(one["logits"] > DROPPED).amax(dim=(2, 3)) for one in found])
                assert torch.equal(kept, recordings.tensor("variants", name).bool())
            else:
                given = torch.cat([one[stage] for one in found])
                assert recordings.difference("variants", name, given) <= 1, name


class AggregatorStages(Stages):
    """The stages of an aggregator without its towers."""

    def __init__(self, aggregator: Aggregator):
        self._found, self._undo = {}, []
        self._watch_aggregator(aggregator)


def test_float64(make_recorded, recordings):
    """The same in float64, where the recording's own rounding does not hide a wrong epsilon."""
    needs(recordings, "float64")
    model = make_recorded().double()
    loss, stages = training_pass(model, recordings)
    loss.backward()
    recorded = recordings.file("float64")
    entries = recordings.manifest["float64.npz"]
    for name, value in recorded.items():
        if name.startswith("train:"):
            stage = name.removeprefix("train:")
            given = loss.detach() if stage == "loss" else stages.shaped(stage, entries[name]["shape"])
        elif name.startswith("grad:"):
            given = ours(model, name.removeprefix("grad:")).grad.reshape(value.shape)
        else:
            continue
        given = given[tuple(slice(None, None, step) for step in entries[name].get("sample") or ())].numpy()
        known = ~np.isnan(given)
        # The k biases of Swin aside, everything has a gradient above noise.
        assert np.abs(given - value)[known].max() <= 1e-8 * max(np.abs(value).max(), 1e-3), name


@pytest.mark.parametrize("file", EVALUATIONS)
def test_evaluation_in_float64(make_recorded, recordings, file):
    needs(recordings, "float64")
    _, scores, _ = evaluation_pass(make_recorded, recordings, file, dtype=torch.float64)
    name = f"{file.removeprefix('eval_')}:sem_seg"
    step = recordings.manifest["float64.npz"][name]["sample"]
    given = scores[tuple(slice(None, None, one) for one in step)].numpy()
    # The sliding window's resizing is float32 in the published CAT-Seg.
    assert np.abs(given - recordings.file("float64")[name]).max() <= (1e-9 if file == "eval_plain" else 2e-6)
