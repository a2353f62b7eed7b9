"""Weights load exactly or not at all (mistakes in the conversion: tests/construction/test_mistakes.py)."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from denserc.encoders import load_exactly, read_weights, to_open_clip_keys
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
    with pytest.raises(CheckpointError, match="no state dict"):
        read_weights(tmp_path / "empty.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="weights_only"):
        read_weights(tmp_path / "module.pt")


def test_rotary_buffers_are_recomputed_and_never_trusted(recorded):
    state = recorded.weights() | {"visual.rope.freqs_cos": torch.zeros(64, 16)}
    assert not [key for key in to_open_clip_keys(state) if "rope" in key]
