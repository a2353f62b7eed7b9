"""A detector trained with masks, used only for boxes: transfer to sets without masks."""

import pytest
import torch

from denserc.openvocab.checkpoint import ModelCheckpointer
from denserc.structures import WeightsMismatchError


def detector(tiny, masks):
    model = tiny(masks=masks)
    model.metadata = {"text_fingerprint": model.text_tower.fingerprint()}
    return model.eval()


def test_a_mask_head_is_left_out_where_none_is_wanted(tiny, make_inputs, tmp_path):
    trained = detector(tiny, masks=True)
    with torch.no_grad():
        for parameter in trained.roi_heads.parameters():
            parameter.add_(0.01)
    ModelCheckpointer(trained, str(tmp_path)).save("model")
    boxes_alone = detector(tiny, masks=False)
    ModelCheckpointer(boxes_alone).load(str(tmp_path / "model.pth"))
    inputs = make_inputs()
    for one, other in zip(trained(inputs), boxes_alone(inputs), strict=True):
        assert not other["instances"].has("pred_masks") and one["instances"].has("pred_masks")
        assert torch.equal(one["instances"].scores, other["instances"].scores)
        assert torch.equal(one["instances"].pred_boxes.tensor, other["instances"].pred_boxes.tensor)


def test_an_absent_mask_head_is_still_refused(tiny, tmp_path):
    ModelCheckpointer(detector(tiny, masks=False), str(tmp_path)).save("model")
    with pytest.raises(WeightsMismatchError, match="mask_head"):
        ModelCheckpointer(detector(tiny, masks=True)).load(str(tmp_path / "model.pth"))
