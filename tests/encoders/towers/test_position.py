from copy import deepcopy

import pytest
import torch
from timm.layers import apply_rot_embed_cat
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F

from denserc.encoders.towers.position import PositionResize, resize_position_embedding, rotary_table


def test_the_trained_size_is_left_alone():
    embedding = torch.randn(1, 17, 8)
    assert resize_position_embedding(embedding, (4, 4), prefix=1) is embedding


def test_resizing_equals_the_originals(recorded):
    trained = recorded("clipself", "pos_embed_s")
    torch.testing.assert_close(
        resize_position_embedding(trained, (16, 16), prefix=1), recorded("clipself", "pos_embed_l"), atol=3e-6, rtol=0
    )
    torch.testing.assert_close(
        resize_position_embedding(trained, (16, 12), prefix=1), recorded("rect", "rect_pos_embed"), atol=3e-6, rtol=0
    )


def test_antialiasing_would_be_noticed(recorded):
    trained = recorded("clipself", "pos_embed_s")
    square = trained[:, 1:].reshape(1, 8, 8, -1).permute(0, 3, 1, 2)
    wrong = F.interpolate(square, size=(5, 5), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    given = resize_position_embedding(trained, (5, 5), prefix=1)[:, 1:]
    assert (given - wrong).abs().max() > 1e-2


def test_timms_way_is_timms():
    from timm.layers import resample_abs_pos_embed

    trained = torch.randn(1, 1 + 64, 8)
    for grid in ((5, 5), (16, 12)):
        given = resize_position_embedding(trained, grid, 1, PositionResize.BICUBIC_ANTIALIAS)
        expected = resample_abs_pos_embed(trained, list(grid), num_prefix_tokens=1)
        torch.testing.assert_close(given, expected, atol=1e-6, rtol=0)


def test_a_grid_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="square"):
        resize_position_embedding(torch.zeros(1, 13, 4), (4, 4), prefix=1)


@pytest.mark.parametrize("size", ["s", "l"])
def test_rotary_table_equals_the_originals(recorded, size):
    cos, sin = recorded("clipself", f"rope_cos_{size}"), recorded("clipself", f"rope_sin_{size}")
    side = round(len(cos) ** 0.5)
    given = rotary_table((side, side), cos.shape[1], (10, 10))
    torch.testing.assert_close(given, torch.cat([sin, cos], -1), atol=3e-6, rtol=0)


def test_rotary_rows_follow_height_first():
    table = rotary_table((2, 3), 8, None)
    assert torch.equal(table[0, :4], table[1, :4])  # same row: the height's half agrees
    assert not torch.equal(table[0, :4], table[3, :4])


def test_a_table_is_made_once_and_serves_inference_and_training():
    with torch.inference_mode():
        table = rotary_table((3, 5), 12, None, dtype=torch.float64)
    assert rotary_table((3, 5), 12, None, dtype=torch.float64) is table
    assert rotary_table((3, 5), 12, None) is not table and rotary_table((5, 3), 12, None).shape == (15, 24)
    x = torch.ones(15, 24, dtype=torch.float64, requires_grad=True)
    (x * table).sum().backward()  # an inference tensor would refuse
    assert torch.equal(x.grad, table)


def test_a_prefix_is_not_rotated_to_the_bit():
    x = torch.randn(1, 2, 1 + 6, 8)
    whole = apply_rot_embed_cat(x, rotary_table((2, 3), 8, (4, 4), prefix=1))
    assert torch.equal(whole[:, :, :1], x[:, :, :1])
    assert torch.equal(whole[:, :, 1:], apply_rot_embed_cat(x[:, :, 1:], rotary_table((2, 3), 8, (4, 4))))


def test_towers_keep_no_table_of_their_own(recorded, recorded_tower):
    tower = deepcopy(recorded_tower)
    keys, buffers = list(tower.state_dict()), len(list(tower.buffers()))
    rope = tower.embed(recorded("inputs", "images_s")).rope
    assert list(tower.state_dict()) == keys and len(list(tower.buffers())) == buffers
    with torch.autocast("cpu", torch.bfloat16):
        stream = recorded_tower.embed(recorded("inputs", "images_s"))
    assert stream.rope.dtype == stream.tokens.dtype
    assert tower.double().embed(recorded("inputs", "images_s").double()).rope.dtype == torch.float64
    assert rope.dtype == torch.float32


def test_a_traced_program_leaves_no_table_behind():
    """A tensor made during tracing has no values and must not be reused."""

    class Rotated(torch.nn.Module):
        def forward(self, x):
            return x + rotary_table((3, 5), 8, (16, 16)).sum()

    expected = rotary_table((3, 4), 8, (16, 16))
    program = torch.export.export(Rotated(), (torch.zeros(2),))
    table = rotary_table((3, 5), 8, (16, 16))
    assert type(table) is torch.Tensor and table.isfinite().all()
    torch.testing.assert_close(program.module()(torch.zeros(2)), table.sum().expand(2))
    with FakeTensorMode():
        assert isinstance(rotary_table((3, 4), 8, (16, 16)), FakeTensor)
    assert rotary_table((3, 4), 8, (16, 16)) is expected
