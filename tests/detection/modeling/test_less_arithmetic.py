"""Shortcuts with less arithmetic have the same values and gradients as the full computation."""

import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from denserc.detection.modeling.heads import norm_builder
from denserc.detection.modeling.pyramid import FeaturePyramid, MapUpsampler
from denserc.detection.modeling.rpn import AnchorGrid, FViTRPN, RPNHead, predict_at

BN = norm_builder("BN", "KEY")
GRIDS = [(8, 6), (3, 5), (1, 2)]


def gradients(outputs, module, inputs):
    """Gradients of a fixed weighted sum of the outputs, to every parameter and input."""
    generator = torch.Generator().manual_seed(1)
    total = sum((one * torch.randn(one.shape, generator=generator, dtype=one.dtype)).sum() for one in outputs)
    return torch.autograd.grad(total, [*module.parameters(), *inputs])


@pytest.mark.parametrize("norm", [BN, None])
@pytest.mark.parametrize("grid", [(8, 8), (7, 5)])
def test_upsampling_and_projection_are_one_linear_map(norm, grid):
    torch.manual_seed(0)
    upsampler = MapUpsampler(width=12, norm=BN).double()
    pyramid = FeaturePyramid(in_channels=12, out_channels=4, num_inputs=4, norm=norm).double()
    for parameter in [*upsampler.parameters(), *pyramid.parameters()]:
        nn.init.normal_(parameter)  # biases too
    maps = [torch.randn(2, 12, *grid, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    both = nn.ModuleList([upsampler, pyramid])
    given = pyramid.from_projected(upsampler.projected(maps, pyramid.projections))
    expected = pyramid(upsampler(maps))
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-6)  # the weights are multiplied in float32
    for one, other in zip(gradients(given, both, maps), gradients(expected, both, maps), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("num_convs", [1, 2])
def test_anchors_are_predicted_from_their_windows(num_convs):
    torch.manual_seed(0)
    head = RPNHead(in_channels=8, num_anchors=3, num_convs=num_convs, norm=None).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases too: beyond the border there is none
    maps = [torch.randn(2, 8, *grid, dtype=torch.float64, requires_grad=True) for grid in GRIDS]
    count = 3 * sum(h * w for h, w in GRIDS)
    images, anchors = torch.arange(2 * count) // count, torch.arange(2 * count) % count
    order = torch.randperm(2 * count)
    images, anchors = images[order], anchors[order]  # every anchor of both images, borders and corners included
    logits, deltas = (torch.cat(one, dim=1) for one in head(maps))
    expected = [logits[images, anchors], deltas[images, anchors]]
    given = predict_at(head, maps, images, anchors)
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    for one, other in zip(gradients(given, head, maps), gradients(expected, head, maps), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_no_anchor_has_gradients_of_zero():
    head = RPNHead(in_channels=4, num_anchors=3, num_convs=2, norm=None)
    maps = [torch.randn(1, 4, 3, 3, requires_grad=True)]
    none = torch.zeros(0, dtype=torch.long)
    logits, deltas = predict_at(head, maps, none, none)
    assert logits.shape == (0,) and deltas.shape == (0, 4)
    (logits.sum() + deltas.sum()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("boxes", [[[2.0, 3.0, 40.0, 44.0]], []])
def test_losses_of_sampled_anchors_are_those_of_the_whole_maps(tiny, boxes):
    rpn: FViTRPN = tiny().proposal_generator.train()
    assert rpn.head.local
    grids = [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert isinstance(rpn.anchors, AnchorGrid)
    maps = [torch.randn(2, 16, *grid) for grid in grids]
    features = dict(zip(rpn.in_features, maps, strict=True))
    truth = [Instances((64, 64), gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4))) for _ in range(2)]
    images = ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2)
    results = []
    for whole in (False, True):
        rpn.zero_grad()
        torch.manual_seed(0)
        if whole:
            logits, deltas = rpn.head(maps)
            losses = rpn.losses(logits, deltas, rpn.anchors(grids), truth)
        else:
            proposals, losses = rpn(images, features, truth)
            assert len(proposals[0]) and not proposals[0].proposal_boxes.tensor.requires_grad
        sum(losses.values()).backward()
        results.append((losses, {name: p.grad.clone() for name, p in rpn.named_parameters()}))
    (losses, grads), (other_losses, other_grads) = results
    for name, loss in losses.items():
        torch.testing.assert_close(loss, other_losses[name], atol=1e-6, rtol=1e-5)
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, other_grads[name], atol=1e-6, rtol=1e-4, msg=name)


def test_a_head_with_norms_goes_through_the_whole_maps(tiny, tiny_config):
    cfg = tiny_config()
    cfg.MODEL.FVIT.RPN.NORM = "BN"
    model = tiny(cfg=cfg).train()
    assert not model.proposal_generator.head.local
