"""The exported program against its detector."""

import pytest
import torch
from torch.nn.functional import normalize

from denserc.detection.export import DetectorProgram, export_detector
from denserc.detection.modeling.options import Padding
from denserc.detection.modeling.postprocess import DetectionRules, select_detections
from denserc.structures import ConfigurationError


@pytest.fixture()
def model(tiny):
    return tiny(padding=Padding.SQUARE, input_size=64).eval()


@torch.no_grad()
def assert_equals(program, model, picture):
    """Detections of the program, suppressed as ours are, equal the model's."""
    h, w = picture.shape[-2:]
    image = torch.full((3, 64, 64), 99.0)
    image[:, :h, :w] = picture
    classes = model.roi_heads.classes
    exponents = model.roi_heads.exponents.for_classes(classes.novel)
    boxes, scores = program(image, torch.tensor([h, w]), classes.vectors, exponents)
    found, _ = select_detections(boxes, scores, (h, w), model.roi_heads.rules)
    expected = model([{"image": picture}])[0]["instances"]
    assert len(expected) > 10
    assert torch.equal(found.pred_classes[: len(expected)], expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-4, rtol=0)


def picture(h, w, seed=0):
    return torch.randint(0, 256, (3, h, w), generator=torch.Generator().manual_seed(seed)).float()


@pytest.fixture(autouse=True)
def above_zero(model):
    """Rows without a proposal have the score 0, so detections are those above a threshold."""
    rules = model.roi_heads.rules
    model.roi_heads.rules = DetectionRules(**{**vars(rules), "score_threshold": 1e-4})


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (64, 33)])
def test_before_export_it_is_the_detector(model, size):
    assert_equals(DetectorProgram(model), model, picture(*size))


def test_exported_program_takes_any_vocabulary_and_picture(model, tmp_path):
    torch.export.save(export_detector(model, 64), tmp_path / "detector.pt2")
    program = torch.export.load(tmp_path / "detector.pt2").module()
    assert_equals(program, model, picture(64, 64))
    assert_equals(program, model, picture(48, 64, seed=1))
    model.set_vocabulary([f"thing {i}" for i in range(30)], novel=["thing 3"])
    assert_equals(program, model, picture(64, 40, seed=2))
    assert not any("text_tower" in key for key in program.state_dict())


@torch.no_grad()
def test_rows_without_a_proposal_have_no_score(model):
    model.proposal_generator.post_nms = (1000, 1000)  # more than there are
    vectors = normalize(torch.randn(4, 16), dim=1)
    boxes, scores = DetectorProgram(model)(picture(64, 64), torch.tensor([64, 64]), vectors, torch.full((4,), 0.5))
    assert boxes.shape == (1000, 4) and scores.shape == (1000, 3)
    found = (scores > 0).all(dim=1)
    assert 0 < found.sum() < 1000 and not scores[~found].any()


def test_a_side_that_no_grid_has_is_refused(model):
    with pytest.raises(ConfigurationError, match="multiple of the patch size 8; got 60"):
        export_detector(model, 60)
