import torch

from denserc.detection.modeling.box_coding import BoxCoder, clip_boxes
from denserc.detection.modeling.options import SizeClamp


def boxes(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 100
    return torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=generator) * 60], dim=1)


def test_decode_inverts_encode():
    coder = BoxCoder(weights=(10, 10, 5, 5))
    reference, target = boxes(20), boxes(20, seed=1)
    torch.testing.assert_close(coder.decode(reference, coder.encode(reference, target)), target, atol=1e-3, rtol=1e-5)


def test_agrees_with_detectron2():
    from detectron2.modeling.box_regression import Box2BoxTransform

    theirs = Box2BoxTransform((10, 10, 5, 5))
    ours = BoxCoder(weights=(10, 10, 5, 5), size_clamp=SizeClamp.ABOVE)
    reference, target = boxes(20), boxes(20, seed=1)
    deltas = ours.encode(reference, target)
    torch.testing.assert_close(deltas, theirs.get_deltas(reference, target))
    extreme = deltas * 40
    torch.testing.assert_close(ours.decode(reference, extreme), theirs.apply_deltas(extreme, reference))


def test_two_sided_clamp_keeps_a_box_from_vanishing():
    shrink = torch.tensor([[0.0, 0.0, -100.0, -100.0]])
    reference = torch.tensor([[0.0, 0.0, 62.5, 62.5]])

    def side(clamp):
        decoded = BoxCoder(weights=(1, 1, 1, 1), size_clamp=clamp).decode(reference, shrink)
        return (decoded[0, 2] - decoded[0, 0]).item()

    assert abs(side(SizeClamp.TWO_SIDED) - 1.0) < 1e-3
    assert side(SizeClamp.ABOVE) < 1e-6


def test_clip_uses_height_for_y_and_width_for_x():
    assert clip_boxes(torch.tensor([[-5.0, -5.0, 500.0, 500.0]]), (30, 70)).tolist() == [[0, 0, 70, 30]]
