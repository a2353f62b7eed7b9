"""The published detectors' keys against the full-size configurations."""

import pytest
import torch
from torch import nn

from denserc.config import read_config
from denserc.detection import FViTBackbone, FViTROIHeads, FViTRPN
from denserc.detection.convert import from_mmdetection
from denserc.structures import CheckpointError
from tests.paths import ROOT
from tests.published import published_shapes


def published(name):
    """Keys of a published file with empty tensors of their shapes."""
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in published_shapes(name).items()}


@pytest.mark.parametrize(
    ("config", "name", "patch", "width", "embed_dim", "trained"),
    [
        ("ovcoco_vitb16", "b16_ovcoco", 16, 768, 512, 20_989_972),
        ("ovlvis_vitl14", "l14_ovlvis", 14, 1024, 768, 33_579_285),
    ],
)
def test_every_published_key_has_its_place(config, name, patch, width, embed_dim, trained):
    cfg = read_config(ROOT / "configs" / f"{config}.yaml")
    cfg.defrost()
    encoder = nn.Module()
    encoder.patch_size, encoder.width, encoder.embed_dim = patch, width, embed_dim
    with torch.device("meta"):
        backbone = FViTBackbone.from_encoder(cfg, encoder)
        shape = backbone.output_shape()
        parts = {"backbone": backbone, "proposal_generator": FViTRPN(cfg, shape), "roi_heads": FViTROIHeads(cfg, shape)}
        model = nn.ModuleDict(parts)
    converted, embeddings = from_mmdetection(published(name))
    towers = {key for key in converted if key.startswith("backbone.encoder.tower.visual.trunk.")}
    given = {key: tuple(value.shape) for key, value in converted.items() if key not in towers}
    assert given == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert embeddings.shape[1] == embed_dim and not any("rope" in key for key in towers)
    assert sum(p.numel() for p in model.parameters()) == trained


def test_a_file_of_another_model_is_refused():
    state = published("b16_ovcoco")
    state["roi_head.semantic_head.weight"] = torch.empty(1)
    with pytest.raises(CheckpointError, match="semantic_head"):
        from_mmdetection(state)
