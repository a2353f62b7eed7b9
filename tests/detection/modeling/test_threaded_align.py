"""RoIAlign on several threads is torchvision's, to the bit, forward and backward."""

import pytest
import torch
from torchvision.ops import roi_align

from denserc.detection.modeling.poolers import threaded_roi_align


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(count: int):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 90 - 5  # some lie partly outside
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 80], dim=1)
    rois = torch.cat([torch.arange(count)[:, None] % 2, boxes], dim=1)
    return torch.randn(2, 8, 20, 24, generator=generator, requires_grad=True), rois


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_values_and_gradients_are_torchvisions(threads, count, channels_last):
    feature, rois = drawn(count)
    given = feature.contiguous(memory_format=torch.channels_last) if channels_last else feature
    ours = threaded_roi_align(given, rois, scale=0.25, resolution=7)
    theirs = roi_align(feature, rois, 7, 0.25, sampling_ratio=-1, aligned=True)
    assert torch.equal(ours, theirs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((one * weights).sum(), feature)[0] for one in (ours, theirs)]
    assert torch.equal(*gradients)


def test_without_gradient_and_in_inference_mode(threads):
    feature, rois = drawn(9)
    expected = roi_align(feature, rois, 3, 0.25, sampling_ratio=-1, aligned=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            pooled = threaded_roi_align(feature * 1, rois, scale=0.25, resolution=3)
        assert not pooled.requires_grad and torch.equal(pooled, expected)


def test_an_error_of_a_thread_is_raised():
    feature, rois = drawn(3)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(AssertionError, match="boxes tensor shape"):
            threaded_roi_align(feature, rois[:, :4], scale=0.25, resolution=3)
    finally:
        torch.set_num_threads(before)
