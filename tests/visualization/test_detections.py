import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from denserc.structures import DataError, Vocabulary
from denserc.visualization import DrawnObjects, detected_objects, detection_page, draw_detections
from denserc.visualization.detections import BASE, NOVEL

GREY = np.full((400, 400, 3), 128, dtype=np.uint8)


def count(picture, color):
    return int((picture == np.array(color)).all(axis=-1).sum())


def objects(novel=(True, False), **options):
    return DrawnObjects([(60, 60, 150, 140), (250, 250, 340, 330)], ["cat", "dog"], novel, **options)


def test_novel_is_red_and_base_is_blue():
    picture = draw_detections(GREY, objects(scores=(0.9, 0.5)))
    assert count(picture[:200], NOVEL) > 300 and count(picture[:200], BASE) == 0
    assert count(picture[200:], BASE) > 300 and count(picture[200:], NOVEL) == 0
    assert count(draw_detections(GREY, objects(novel=())), NOVEL) == 0


def test_pixels_away_from_objects_and_the_input_do_not_change():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
    before = picture.copy()
    drawn = draw_detections(picture, objects())
    np.testing.assert_array_equal(picture, before)
    changed = (drawn != picture).any(axis=-1)
    assert not changed[:30].any() and not changed[160:220].any() and not changed[:, 360:].any()
    assert not changed[70:130, 70:140].any()  # inside a box without a mask
    assert changed.any()


def test_nothing_to_draw_gives_the_picture():
    np.testing.assert_array_equal(draw_detections(GREY, DrawnObjects([], [])), GREY)


def test_small_pictures_are_enlarged_with_their_boxes():
    small = np.full((128, 128, 3), 128, dtype=np.uint8)
    drawn = draw_detections(small, DrawnObjects([(64, 64, 120, 120)], ["cat"], [True]))
    assert drawn.shape == (384, 384, 3)
    red = np.argwhere((drawn == np.array(NOVEL)).all(axis=-1))
    assert red[:, 0].max() == 359 and red[:, 1].max() >= 359 and red[:, 1].min() in range(188, 194)


def test_masks_tint_their_pixels_alone():
    mask = np.zeros((1, 400, 400), dtype=bool)
    mask[0, 80:120, 80:120] = True
    drawn = draw_detections(GREY, DrawnObjects([(60, 60, 150, 140)], ["cat"], [True], masks=mask))
    inside, outside = drawn[100, 100].astype(int), drawn[125, 125]
    assert inside[0] > 150 > inside[1]  # reddish
    np.testing.assert_array_equal(outside, (128, 128, 128))


def test_a_box_out_of_the_picture_and_an_empty_one_do_not_fail():
    drawn = draw_detections(
        GREY, DrawnObjects([(-50, -50, 10, 10), (500, 500, 600, 600), (30, 30, 30, 30)], list("abc"))
    )
    assert drawn.shape == GREY.shape


def test_best_keeps_the_highest_scores_in_order():
    masks = np.arange(3)[:, None, None] == np.zeros((3, 4, 4))
    given = DrawnObjects(np.eye(3, 4), list("abc"), (True, False, True), (0.2, 0.9, 0.5), masks)
    best = given.best(2, threshold=0.3)
    assert list(best.labels) == ["b", "c"] and best.scores == (0.9, 0.5) and best.novel == (False, True)
    np.testing.assert_array_equal(best.boxes, np.eye(3, 4)[[1, 2]])
    np.testing.assert_array_equal(best.masks, masks[[1, 2]])
    assert len(given.best(5, threshold=0.95).boxes) == 0


def test_a_page_has_a_row_a_picture_and_a_column_a_detector():
    page = detection_page([GREY, GREY], [objects()] * 2, {"one": [objects()] * 2, "two": [objects()] * 2})
    assert page.shape[0] > 800 and page.shape[1] > 1200
    assert count(page, NOVEL) > 6 * 300


def test_what_does_not_pair_up_is_refused():
    with pytest.raises(DataError, match="labels"):
        DrawnObjects([(0, 0, 1, 1)], [])
    with pytest.raises(DataError, match="scores"):
        DrawnObjects([(0, 0, 1, 1)], ["a"], scores=(0.1, 0.2))
    with pytest.raises(DataError, match="Masks"):
        draw_detections(GREY, DrawnObjects([(0, 0, 1, 1)], ["a"], masks=np.zeros((1, 4, 4), bool)))


def test_a_detectors_answer_is_drawn_with_one_label_a_place():
    found = Instances((400, 400))
    found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 95], [200, 200, 300, 300]]))
    found.scores, found.pred_classes = torch.tensor([0.5, 0.9, 0.4]), torch.tensor([0, 1, 0])
    objects_ = detected_objects(found, Vocabulary(["cat", "dog"], novel=["dog"]))
    assert list(objects_.labels) == ["dog", "cat"] and objects_.novel == (True, False)
    np.testing.assert_allclose(objects_.scores, [0.9, 0.4], rtol=1e-6)
    assert len(detected_objects(found, Vocabulary(["cat", "dog"]), overlap=1.0).boxes) == 3


def test_a_page_without_truth_has_no_column_for_it():
    with_truth = detection_page([GREY], [objects()], {"one": [objects()]})
    without = detection_page([GREY], None, {"one": [objects()]})
    assert without.shape[1] < 0.6 * with_truth.shape[1]
