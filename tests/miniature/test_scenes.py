import cv2
import numpy as np
import pytest

from denserc.miniature.render import STYLES, Placed, paint, silhouette
from denserc.miniature.scenes import MIN_VISIBLE, compose_scene
from denserc.miniature.world import ALL_THINGS, SHAPES, STUFF, Domain, Thing


def scene(seed, *args, **kwargs):
    return compose_scene(np.random.default_rng(seed), *args, **kwargs)


@pytest.mark.parametrize("domain", list(Domain))
def test_the_same_seed_gives_the_same_scene(domain):
    first, second, other = scene(3, domain), scene(3, domain), scene(4, domain)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.segments, second.segments)
    assert first.names == second.names
    assert not np.array_equal(first.image, other.image)


def test_every_pixel_has_one_segment_and_every_thing_is_visible():
    for seed in range(30):
        s = scene(seed)
        assert s.image.dtype == np.uint8 and s.image.shape == (128, 128, 3)
        assert s.segments.max() < len(s.names)
        assert 0 <= len(s.things) <= 8 and 1 <= len(s.stuff) <= 2
        assert set(s.stuff) <= set(STUFF)
        assert all(s.thing_mask(i).any() for i in range(len(s.things)))


def test_masks_lie_on_the_pixels_that_a_thing_changed():
    placed = Placed(Thing("solid", "red", "star"), 30.3, 40.7, 18.0, 0.3)
    shape = silhouette(placed, 96, 64, STYLES[Domain.MAIN])
    canvas = np.full((96, 64, 3), 128, np.float32)
    paint(canvas, placed, shape, STYLES[Domain.MAIN], np.random.default_rng(0))
    mask = np.zeros((96, 64), bool)
    mask[shape.window] = shape.alpha >= 0.5
    red = (canvas[..., 0] - canvas[..., 2]) > 60
    assert (red & ~mask).sum() <= 0.1 * mask.sum()
    assert (mask & ~red).sum() <= 0.1 * mask.sum()
    assert (canvas[:10] == 128).all()


def test_nearer_things_hide_farther_ones_but_never_completely():
    for seed in range(20):
        s = scene(seed, count=8)
        assert s.segments.max() == len(s.names) - 1
    thing = Thing("solid", "blue", "circle")
    alone = silhouette(Placed(thing, 64, 64, 20, 0), 128, 128, STYLES[Domain.MAIN])
    assert (alone.alpha >= 0.5).sum() == pytest.approx(np.pi * 400, rel=0.03)
    assert 0 < MIN_VISIBLE < 1


def test_sizes_span_an_order_of_magnitude():
    extents = []
    for seed in range(80):
        s = scene(seed, count=1)
        extents += [np.sqrt(s.thing_mask(i).sum()) for i in range(len(s.things))]
    assert min(extents) < 10 and max(extents) > 60


@pytest.mark.parametrize("shape", SHAPES)
def test_silhouettes_are_distinct_and_anti_aliased(shape):
    alphas = {
        s: silhouette(Placed(Thing("solid", "red", s), 32, 32, 24, 0), 64, 64, STYLES[Domain.MAIN]).alpha
        for s in SHAPES
    }
    own = alphas.pop(shape)
    assert ((own > 0.05) & (own < 0.95)).any()
    for other in alphas.values():
        intersection, union = np.minimum(own, other).sum(), np.maximum(own, other).sum()
        assert intersection / union < 0.9
    holes = cv2.connectedComponents(np.pad(own < 0.5, 1, constant_values=True).astype(np.uint8))[0] - 2
    assert (holes == 1) == (shape == "ring")


def test_other_sizes_and_class_weights():
    weights = np.zeros(len(ALL_THINGS))
    weights[7] = 1
    s = scene(0, size=(96, 160), things=ALL_THINGS, weights=weights, count=5)
    assert s.image.shape == (96, 160, 3) and s.segments.shape == (96, 160)
    assert set(s.things) == {ALL_THINGS[7]}
    assert scene(1, count=0).things == ()


def test_a_thing_outside_the_picture_has_no_silhouette():
    assert silhouette(Placed(ALL_THINGS[0], -50, -50, 10, 0), 64, 64, STYLES[Domain.MAIN]) is None
