"""The resume state is whole or absent, and says what it is."""

import pytest
import torch

from denserc.distillation.trainer import latest_state, read_state, write_state
from denserc.structures import CheckpointError, weights_digest


def test_written_states_come_back_and_old_ones_go(tmp_path):
    assert latest_state(tmp_path / "absent") is None
    for step in (3, 6, 12):
        write_state(tmp_path, step, {"value": torch.tensor([step])}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state_00000006.pt", "state_00000012.pt"]
    content = read_state(latest_state(tmp_path))
    assert content["step"] == 12 and content["value"].item() == 12


def test_a_write_that_fails_leaves_the_old_state(tmp_path):
    write_state(tmp_path, 1, {"value": 1})
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        write_state(tmp_path, 2, {"value": lambda: None})
    assert read_state(latest_state(tmp_path))["step"] == 1


def test_other_files_are_refused(tmp_path):
    torch.save({"model": 1}, tmp_path / "state_00000001.pt")
    with pytest.raises(CheckpointError, match="version"):
        read_state(latest_state(tmp_path))
    (tmp_path / "state_00000002.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(latest_state(tmp_path))


def test_digest_sees_a_single_bit():
    module = torch.nn.Linear(3, 3)
    before = weights_digest(module)
    with torch.no_grad():
        module.weight[0, 0] = torch.nextafter(module.weight[0, 0], torch.tensor(9.0))
    assert weights_digest(module) != before
