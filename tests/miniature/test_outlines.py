import numpy as np
import pytest
from pycocotools import mask as coco_mask

from denserc.miniature.outlines import mask_to_polygons


def drawn(polygons, height, width):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_polygons_drawn_by_pycocotools_give_back_any_mask(share):
    rng = np.random.default_rng(0)
    for _ in range(40):
        mask = rng.random((17, 23)) < share
        assert np.array_equal(drawn(mask_to_polygons(mask), 17, 23), mask)


def test_a_ring_is_cut_through_its_hole():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[3:6, 3:6] = False
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    assert np.array_equal(drawn(polygons, 9, 9), mask)


def test_straight_runs_are_merged_and_an_empty_mask_has_none():
    mask = np.zeros((6, 8), bool)
    assert mask_to_polygons(mask) == []
    mask[1:5, 2:7] = True
    (polygon,) = mask_to_polygons(mask)
    assert sorted(zip(polygon[0::2], polygon[1::2], strict=True)) == [(2, 1), (2, 5), (7, 1), (7, 5)]
