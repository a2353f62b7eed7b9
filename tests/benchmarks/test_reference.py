"""The reference computes the same numbers as DenseRC, so the benchmarks compare only the implementation."""

from copy import deepcopy

import pytest
import torch

from benchmarks import reference
from benchmarks.data_path import as_read, grid, made, our_views
from benchmarks.reference import Attention, ReferenceDistiller, pil_views
from denserc.construction import Construction, DenseEncoder
from denserc.data.images.resizing import BicubicKernel
from denserc.distillation.distiller import normalized
from denserc.structures import CLIP_PIXELS
from tests.distillation.test_distiller import make_batch, make_distiller


@pytest.mark.parametrize("attention", Attention)
@pytest.mark.parametrize("name", ["denserc", "clipself"])
@torch.no_grad()
def test_dense_features_are_ours(recorded_tower, name, attention):
    encoder = DenseEncoder(deepcopy(recorded_tower), Construction.named(name))
    if encoder.gates is not None:
        torch.nn.init.normal_(encoder.gates.projections[0].weight, std=0.1)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    given, expected = reference.dense(encoder, images, attention), encoder(images)
    torch.testing.assert_close(given, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", Attention)
def test_a_step_has_our_losses_and_gradients(recorded_tower, attention):
    ours = make_distiller(recorded_tower)
    theirs = ReferenceDistiller(deepcopy(ours), attention)
    gradients = []
    for model, student in ((ours, ours.student), (theirs, theirs.distiller.student)):
        losses = model(make_batch())
        sum(losses.values()).backward()
        gradients.append((losses, {n: p.grad for n, p in student.named_parameters() if p.grad is not None}))
    (losses, ours), (others, theirs) = gradients
    for name, loss in losses.items():
        torch.testing.assert_close(others[name], loss, atol=2e-6, rtol=1e-5)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, atol=2e-5, rtol=1e-3)


def test_the_pil_way_shows_our_views(tmp_path):
    from benchmarks.data_path import drawn_images

    class Options:
        student, foundation, crop = 96, 84, 32

    path, boxes = drawn_images(tmp_path, 1)[0], grid(3)
    theirs = pil_views(path, boxes, student=96, foundation=84, crop=32, pixels=CLIP_PIXELS)
    for ours in (our_views(path, boxes, BicubicKernel.PILLOW, Options), made(as_read(path, boxes, Options))):
        for one, two in zip(ours, theirs, strict=True):
            torch.testing.assert_close(normalized(one, CLIP_PIXELS), two, atol=1e-6, rtol=1e-6)
