"""Maps of any stride: upsampler, pyramid, anchors, pooling."""

import pytest
import torch

from denserc.detection.modeling.heads import norm_builder
from denserc.detection.modeling.poolers import RegionPooler
from denserc.detection.modeling.pyramid import FeaturePyramid, MapUpsampler
from denserc.detection.modeling.rpn import AnchorGrid
from denserc.structures import ConfigurationError

BN = norm_builder("BN", "KEY")


@pytest.mark.parametrize("grid", [(8, 8), (9, 6), (5, 7)])
def test_sizes_with_even_and_odd_grids(grid):
    h, w = grid
    maps = MapUpsampler(width=8, norm=BN)([torch.randn(2, 8, h, w)] * 4)
    half = (h // 2, w // 2)
    assert [tuple(one.shape[-2:]) for one in maps] == [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), half]
    levels = FeaturePyramid(in_channels=8, out_channels=4, num_inputs=4, norm=BN)(maps)
    assert [tuple(one.shape[1:]) for one in levels[:4]] == [(4, *one.shape[-2:]) for one in maps]
    assert torch.equal(levels[4], levels[3][:, :, ::2, ::2])


def test_a_fine_map_sees_the_coarse_ones_but_not_the_reverse():
    maps = [torch.randn(1, 8, 2**k, 2**k, requires_grad=True) for k in (5, 4, 3, 2)]
    levels = FeaturePyramid(in_channels=8, out_channels=4, num_inputs=4, norm=None)(maps)
    reached = torch.autograd.grad(levels[0].sum(), maps, allow_unused=True, retain_graph=True)
    assert all(gradient is not None for gradient in reached)
    reached = torch.autograd.grad(levels[3].sum(), maps, allow_unused=True)
    assert [gradient is None for gradient in reached] == [True, True, True, False]


def test_anchors_keep_their_area_over_the_ratios():
    cells = AnchorGrid(strides=(3.5, 7), scale=8, ratios=(0.5, 1, 2)).cells
    w, h = cells[..., 2] - cells[..., 0], cells[..., 3] - cells[..., 1]
    torch.testing.assert_close(w * h, torch.tensor([[784.0] * 3, [3136.0] * 3]))
    torch.testing.assert_close(h / w, torch.tensor([[0.5, 1, 2]] * 2))


def test_regions_are_pooled_from_the_level_of_their_size():
    strides = (3.5, 7.0, 14.0, 28.0)
    maps = [torch.full((2, 1, 40, 40), float(i)) for i in range(4)]
    pooler = RegionPooler(resolution=3, strides=strides, finest_scale=56)
    boxes = [torch.tensor([[0.0, 0.0, 30.0, 30.0]])]
    boxes.append(torch.tensor([[0.0, 0.0, 120.0, 120.0], [0.0, 0.0, 50.0, 60.0], [0.0, 0.0, 400.0, 400.0]]))
    pooled = pooler(maps, boxes)
    assert pooled.shape == (4, 1, 3, 3) and pooled[:, 0, 1, 1].tolist() == [0, 1, 0, 2]


def test_no_regions():
    pooler = RegionPooler(resolution=3, strides=(4.0,), finest_scale=56)
    assert pooler([torch.zeros(1, 5, 8, 8)], [torch.zeros(0, 4)]).shape == (0, 5, 3, 3)


def test_unknown_norm_is_refused():
    with pytest.raises(ConfigurationError, match="KEY is 'Bn'; legal are"):
        norm_builder("Bn", "KEY")
    assert norm_builder("", "KEY") is None
    assert type(norm_builder("SyncBN", "KEY")(4)) is torch.nn.BatchNorm2d  # one process
