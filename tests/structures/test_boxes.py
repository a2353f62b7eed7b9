"""Boxes are enlarged about their centers, and pooling one cell returns this cell."""

import torch

from denserc.structures.boxes import grow_boxes, pool_cells


def test_boxes_grow_about_their_centers_and_stay_in_the_image():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.4, 0.4, 0.6, 0.6]])
    expected = torch.tensor([[0.0, 0.0, 0.75, 0.75], [0.3, 0.3, 0.7, 0.7]])
    torch.testing.assert_close(grow_boxes(boxes, 2.0), expected)
    assert grow_boxes(boxes, 1.0) is boxes and grow_boxes(boxes[:0], 2.0).shape == (0, 4)


def test_boxes_in_pixels_are_cut_at_height_and_width():
    boxes = torch.tensor([[10, 10, 30, 20], [0, 90, 20, 100], [70, 0, 80, 10]], dtype=torch.float64)
    grown = grow_boxes(boxes, 1.5, (100, 81))
    assert grown.tolist() == [[5.0, 7.5, 35.0, 22.5], [0.0, 87.5, 25.0, 100.0], [67.5, 0.0, 81.0, 12.5]]
    assert grown.dtype == torch.float64


def test_pooled_cells_are_the_features_of_each_image():
    features = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    boxes = [torch.tensor([[1.0, 2.0, 2.0, 3.0]]), torch.tensor([[4.0, 0.0, 5.0, 1.0], [0.0, 0.0, 5.0, 4.0]])]
    pooled = pool_cells(features, boxes)
    torch.testing.assert_close(pooled[:2], torch.stack([features[0, :, 2, 1], features[1, :, 0, 4]]))
    torch.testing.assert_close(pooled[2], features[1].mean(dim=(1, 2)))
    assert pool_cells(features, [boxes[0][:0], boxes[1][:0]]).shape == (0, 3)
