"""Grids: the distribution of draws, and coverage of the image."""

import random
from collections import Counter

import pytest
import torch

from denserc.distillation.data.regions import GridRegions, GridRule, ImageRecord, grid_boxes, grid_choices
from denserc.structures import ConfigurationError, choose

RECORD = ImageRecord("image.png", 1)


def test_clipself_choices_are_the_recorded_ones(recordings):
    recorded = recordings("clipself_preprocess")
    assert grid_choices(6, GridRule.CLIPSELF) == [tuple(c) for c in recorded["choices_M6"].tolist()]
    assert len(grid_choices(16, GridRule.CLIPSELF)) == int(recorded["choices_M16_count"])


def test_uniform_draws_every_pair_equally_often():
    regions = GridRegions(max_split=3, max_regions=0)
    rng = random.Random(0)
    counts = Counter()
    for _ in range(9000):
        boxes = regions.sample(RECORD, rng)
        rows, columns = len(boxes[:, 1].unique()), len(boxes[:, 0].unique())
        counts[rows, columns] += 1
    assert set(counts) == {(m, n) for m in (1, 2, 3) for n in (1, 2, 3)}
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_square < 26.1  # the 0.999 quantile for 8 degrees of freedom


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (6, 4)])
def test_cells_tile_the_image(rows, columns):
    boxes = grid_boxes(rows, columns)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert torch.allclose(sides, torch.tensor([1 / columns, 1 / rows]).expand_as(sides))
    assert torch.isclose(sides.prod(dim=1).sum(), torch.tensor(1.0))
    assert len({tuple(box) for box in boxes.tolist()}) == rows * columns
    # Row by row: the second cell is to the right of the first.
    if columns > 1:
        assert boxes[1, 0] > boxes[0, 0] and boxes[1, 1] == boxes[0, 1]


def test_the_cap_keeps_a_random_subset():
    capped = GridRegions(max_split=6, max_regions=20)
    rng = random.Random(0)
    drawn = [capped.sample(RECORD, rng) for _ in range(300)]
    assert max(len(boxes) for boxes in drawn) == 20
    full = [boxes for boxes in drawn if len(boxes) == 20]
    assert all(len({tuple(b) for b in boxes.tolist()}) == 20 for boxes in full)
    assert len({tuple(sorted(map(tuple, boxes.tolist()))) for boxes in full}) > 10


def test_same_generator_same_regions():
    regions = GridRegions()
    first, second = random.Random("a"), random.Random("a")
    assert all(torch.equal(regions.sample(RECORD, first), regions.sample(RECORD, second)) for _ in range(20))


def test_unknown_names_list_the_legal_ones():
    with pytest.raises(ConfigurationError, match="'diagonal'.*'uniform', 'clipself'"):
        choose(GridRule, "diagonal", "DISTILL.REGIONS.GRID_RULE")
    with pytest.raises(ConfigurationError, match="max_split"):
        GridRegions(max_split=0)
