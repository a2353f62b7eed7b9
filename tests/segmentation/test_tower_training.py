"""Trained weights in the towers of each family, and their storage."""

import pytest
import torch

from denserc.construction import Construction, DenseEncoder
from denserc.encoders import build_clip
from denserc.segmentation.modeling.options import TowerTraining
from denserc.segmentation.modeling.tower_training import train_image_tower, train_text_tower
from tests import tiny_models  # noqa: F401  (registers the models)

FAMILIES = ("DenseRC-Miniature", "DenseRC-Test-CLIP", "DenseRC-Test-Sigmoid")


def encoder_of(family, construction="denserc", training=TowerTraining.QV):
    torch.manual_seed(0)
    encoder = DenseEncoder(build_clip(family, random_init=True).image, Construction.named(construction))
    train_image_tower(encoder, training)
    return encoder.eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [TowerTraining.QV, TowerTraining.QKV])
def test_training_changes_neither_features_nor_names(family, training):
    images = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    frozen, learning = encoder_of(family, training=TowerTraining.NONE), encoder_of(family, training=training)
    assert not any(p.requires_grad for p in frozen.parameters())
    with torch.no_grad():
        torch.testing.assert_close(learning(images), frozen(images), atol=1e-6, rtol=1e-6)
    state = learning.state_dict()
    assert state.keys() == frozen.state_dict().keys()
    assert all(torch.equal(value, frozen.state_dict()[key]) for key, value in state.items())
    changed = {key: value + 0.01 for key, value in state.items()}
    learning.load_state_dict(changed, strict=True)
    frozen.load_state_dict(changed, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(learning(images), frozen(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("construction", ["denserc", "declip", "declip_csa", "clipself"])
def test_what_learns_gets_a_gradient(family, construction):
    encoder = encoder_of(family, construction)
    dense, _ = encoder.forward_with_maps(torch.randn(1, 3, 32, 40), (1,))
    dense.square().sum().backward()
    learning = [p for p in encoder.parameters() if p.requires_grad]
    depth = encoder.tower.depth
    # q and v of every block, of the last one only what the construction reads.
    assert len(learning) == 2 * depth - ("q" not in encoder.construction.module.self_correlated)
    assert all(p.grad is not None and p.ndim == 2 for p in learning)
    assert all(p.grad is None for p in encoder.parameters() if not p.requires_grad)


def test_only_some_rows_of_a_joint_projection_learn():
    """Under weight decay too, which a masked gradient would not stop."""
    text = build_clip("DenseRC-Miniature", random_init=True).text
    train_text_tower(text, TowerTraining.QV)
    before = {key: value.clone() for key, value in text.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in text.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    text(["a red square"]).sum().backward()
    optimizer.step()
    changed = {key for key, value in text.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.endswith("attn.in_proj_weight") for key in changed)
    for key in changed:
        q, k, v = ((a != b).any() for a, b in zip(text.state_dict()[key].chunk(3), before[key].chunk(3), strict=True))
        assert q and v and not k
    assert text.fingerprint() != build_clip("DenseRC-Miniature", random_init=True).text.fingerprint()
    with torch.no_grad():
        torch.testing.assert_close(text.encode_text(["a red square"]), text(["a red square"]))


def test_the_fingerprint_is_that_of_the_same_frozen_tower():
    torch.manual_seed(0)
    text = build_clip("DenseRC-Miniature", random_init=True).text
    before = text.fingerprint()
    train_text_tower(text, TowerTraining.QV)
    assert text.fingerprint() == before
