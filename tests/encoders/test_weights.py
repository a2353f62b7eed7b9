"""Weights load exactly or not at all (mistakes in the conversion: tests/construction/test_mistakes.py)."""

import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from denserc.detection.convert import _DROPPED
from denserc.encoders import build_clip, load_exactly, read_weights, to_open_clip_keys
from denserc.encoders.miniature import MINIATURE_WEIGHTS
from denserc.structures import CheckpointError, WeightsMismatchError


def test_all_keys_that_do_not_fit_are_listed_and_none_is_loaded():
    module = nn.Linear(3, 2)
    before = module.bias.clone()
    with pytest.raises(WeightsMismatchError) as caught:
        load_exactly(module, {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, "a.pt")
    assert caught.value.missing == ["bias"]
    assert caught.value.unexpected == ["extra"]
    assert caught.value.misshapen == [("weight", (2, 4), (2, 3))]
    assert "a.pt" in str(caught.value) and "expected (2, 3)" in str(caught.value)
    assert torch.equal(module.bias, before)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": {"module": s}}])
def test_nested_and_parallel_files_are_unwrapped(tmp_path, wrap):
    state = {"module.a": torch.ones(2), "module.b": torch.zeros(1)}
    torch.save(wrap(state), tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt")) == {"a", "b"}


def test_safetensors_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["a"], torch.ones(2))


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no weights file"):
        read_weights(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="text.pt"):
        read_weights(tmp_path / "text.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="no state dict.*'epoch': int"):
        read_weights(tmp_path / "empty.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="weights_only"):
        read_weights(tmp_path / "module.pt")


def test_rotary_buffers_are_recomputed_and_never_trusted(recorded):
    state = recorded.weights() | {"visual.rope.freqs_cos": torch.zeros(64, 16)}
    assert not [key for key in to_open_clip_keys(state) if "rope" in key]


STATE = {"a": torch.ones(2), "b": torch.zeros(1)}


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema", "ema_state_dict", "student", "params"])
def test_the_only_state_dict_of_a_file_is_taken(tmp_path, key, caplog):
    caplog.set_level(logging.INFO)
    content = {"epoch": 3, key: STATE, "loss": torch.tensor(0.3), "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == STATE.keys()
    assert f"the weights are those of its entry '{key}'" in caplog.text


def test_an_averaged_model_loads_without_its_counter(tmp_path):
    average = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 3))
    for nested in (average.state_dict(), {"model_ema": average.state_dict()}):
        torch.save(nested, tmp_path / "w.pt")
        load_exactly(nn.Linear(2, 3), read_weights(tmp_path / "w.pt"), "w.pt")


def test_the_counter_alone_is_an_ordinary_weight(tmp_path):
    torch.save({"n_averaged": torch.ones(2), "other": torch.ones(2)}, tmp_path / "w.pt")
    assert "n_averaged" in read_weights(tmp_path / "w.pt")


def nested(depth):
    content = {"model_ema": STATE}
    for _ in range(depth):
        content = {"inner": content}
    return content


def endless():
    content = {"model": None}
    content["model"] = content
    return content


AMBIGUOUS = {
    "two": (
        {"student": STATE, "teacher": STATE},
        r"several state dicts.*'student': a mapping with 2 tensors.*'teacher'",
    ),
    "none": ({"epoch": 3, "args": {"lr": 0.1}}, r"no state dict.*'epoch': int, 'args': a mapping without tensors"),
    "empty": ({}, "no state dict.*Its entries are none"),
    "empty inside": ({"state_dict": {}}, "no state dict.*in 'state_dict'"),
    "numbers": ({0: torch.ones(2)}, "under 0, which is not the name"),
    "a list": ([torch.ones(2)], "it holds list"),
    "a tensor": (torch.ones(2), r"it holds a tensor \(2,\)"),
    "nothing": (None, "it holds NoneType"),
    "itself": (endless(), "no state dict"),
    "too deep": (nested(20), "no state dict"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_other_content_is_listed(tmp_path, case):
    content, told = AMBIGUOUS[case]
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"w\.pt holds .*{told}"):
        read_weights(tmp_path / "w.pt")


def test_a_checkpoint_of_open_clips_training_loads(tmp_path):
    """The rate of its cosine schedule is a scalar of NumPy."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.param_groups[0]["lr"] = 0.5 * (1 + np.cos(0.3)) * 1e-5
    optimizer.step()
    state = {f"module.{key}": value for key, value in read_weights(MINIATURE_WEIGHTS).items()}
    content = {"epoch": 1, "name": "run", "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "epoch_1.pt")
    found = build_clip("DenseRC-Miniature", str(tmp_path / "epoch_1.pt"))
    assert found.text.fingerprint() == build_clip("DenseRC-Miniature").text.fingerprint()


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("count", torch.zeros(3, dtype=torch.int32))
        self.register_buffer("flag", torch.zeros(1, dtype=torch.bool))
        self.register_buffer("mask", torch.tensor([0.0, -float("inf")]))


RIGHT = {
    "weight": torch.ones(2, 2),
    "count": torch.ones(3, dtype=torch.int32),
    "flag": torch.ones(1, dtype=torch.bool),
    "mask": torch.tensor([0.0, -float("inf")]),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floating_weights_of_any_precision_load(dtype):
    module = Parts()
    load_exactly(module, {**RIGHT, "weight": RIGHT["weight"].to(dtype), "count": RIGHT["count"].long()}, "w.pt")
    assert torch.equal(module.weight, RIGHT["weight"]) and torch.equal(module.count, RIGHT["count"])


NAN = float("nan")
WRONG = {
    "integer": ({"weight": torch.ones(2, 2).int()}, "mistyped.*weight: given integer, expected floating"),
    "bool": ({"weight": torch.ones(2, 2).bool()}, "weight: given torch.bool, expected floating"),
    "complex": ({"weight": torch.ones(2, 2).cfloat()}, "weight: given torch.complex64, expected floating"),
    "sparse": ({"weight": torch.ones(2, 2).to_sparse()}, "weight: given torch.sparse_coo, expected floating"),
    "meta": ({"weight": torch.ones(2, 2, device="meta")}, "weight: given without values, expected floating"),
    "quantized": (
        {"weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)},
        "weight: given quantized, expected floating",
    ),
    "float as count": ({"count": torch.ones(3)}, "count: given floating, expected integer"),
    "number as flag": ({"flag": torch.ones(1).int()}, "flag: given integer, expected torch.bool"),
    "NaN": ({"weight": torch.tensor([[1.0, NAN], [1, 1]])}, r"weight \(1 of 4 values\)"),
    "infinite": ({"weight": torch.full((2, 2), -float("inf"))}, r"weight \(4 of 4 values\)"),
    "NaN of half": ({"weight": torch.full((2, 2), NAN).half()}, r"weight \(4 of 4 values\)"),
    "beyond float32": ({"weight": torch.full((2, 2), 1e300, dtype=torch.float64)}, r"weight \(4 of 4 values\)"),
    "beyond int32": ({"count": torch.full((3,), 2**40)}, r"count \(beyond torch.int32\)"),
    "NaN in a mask": ({"mask": torch.tensor([NAN, -float("inf")])}, r"mask \(2 of 2 values\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_numbers_are_refused_and_nothing_is_loaded(case):
    change, told = WRONG[case]
    module = Parts()
    with pytest.raises(CheckpointError, match=rf"(?s)w\.pt.*{told}"):
        load_exactly(module, {**RIGHT, **change}, "w.pt")
    assert not module.weight.any() and not module.count.any() and not module.flag.any()


DERIVED_NAMES = (
    "rope.freqs_cos", "rope.freqs_sin", "rope.flag", "rope.freqs_cos_1600", "blocks.0.attn.rope.freqs_sin_576",
    "blocks.11.attn.rope.freqs_cos_64", "attn_mask", "transformer.attn_mask", "embeddings.position_ids",
    "layers.0.attn.relative_position_index",
)  # fmt: skip
KEPT_NAMES = ("pos_embed", "blocks.0.attn.relative_position_bias_table", "blocks.0.rope_scale", "europe.flag")


def test_buffers_that_follow_from_the_architecture_are_dropped():
    state = {f"visual.{name}": torch.zeros(1) for name in (*DERIVED_NAMES, *KEPT_NAMES, "blocks.0.norm1.weight")}
    expected = {f"visual.trunk.{name}" for name in (*KEPT_NAMES, "blocks.0.norm1.weight")}
    assert set(to_open_clip_keys(state)) == expected
    assert all(_DROPPED.search(f"backbone.visual.{name}") for name in DERIVED_NAMES)
    assert not any(_DROPPED.search(f"backbone.visual.{name}") for name in KEPT_NAMES)
