"""Published encoders through the command line, against CLIPSelf's and DeCLIP's results with the same weights."""

import pytest
import torch

from denserc.commands.convert_clip import main
from denserc.construction import load_checkpoint
from denserc.structures import CheckpointError, WeightsMismatchError
from tests.published import register_tiny_eva

RECORDED = {
    "patch": 8,
    "clip_image_size": 64,
    "width": 96,
    "depth": 6,
    "heads": 6,
    "embed": 48,
    "mlp_ratio": 2.6667,
    "rope_reference": 10,
    "text": {"context_length": 12, "vocab_size": 64, "width": 48, "heads": 3, "layers": 2},
}
UNSAVED = ("logit_scale", "text.")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return register_tiny_eva(tmp_path_factory.mktemp("clip"), "DenseRC-Test-Published", RECORDED)


@pytest.fixture()
def convert(tmp_path, encoder):
    """convert(weights, construction, *more) -> the model of the checkpoint that the command writes."""

    def run(weights: dict, construction: str, *more: str):
        # As CLIPSelf and DeCLIP save: nested, and from DistributedDataParallel.
        nested = {"epoch": 6, "name": "x", "state_dict": {f"module.{key}": value for key, value in weights.items()}}
        torch.save(nested, tmp_path / "published.pt")
        output = tmp_path / "out" / "dense.safetensors"
        main([str(tmp_path / "published.pt"), str(output), "--encoder", encoder, "--construction", construction, *more])
        return load_checkpoint(output)

    return run


@pytest.mark.parametrize(
    "construction, array, atol", [("clipself", "encode_dense_l", 1e-5), ("declip", "dense_qq_l", 2e-4)]
)
@torch.no_grad()
def test_it_computes_what_the_original_computed(convert, recorded, construction, array, atol):
    model = convert(recorded.weights(), construction)
    dense = model.encoder.eval()(recorded("inputs", "images_l"))
    if construction == "clipself":
        dense = torch.nn.functional.normalize(dense, dim=1)
    torch.testing.assert_close(dense, recorded(construction, array), atol=atol, rtol=0)
    text = model.text.text(recorded("inputs", "text"))
    torch.testing.assert_close(text, recorded("clipself", "encode_text"), atol=5e-6, rtol=0)
    assert model.logit_scale == pytest.approx(recorded.weights()["logit_scale"].exp().item(), rel=1e-6)
    assert model.extra == {"converted_from": "published.pt", "encoder_weights": "published.pt"}


def test_an_image_tower_alone_takes_its_text_tower_from_its_clip(convert, recorded, tmp_path):
    whole = recorded.weights()
    torch.save({**whole, "visual.cls_token": whole["visual.cls_token"] + 1}, tmp_path / "clip.pt")
    alone = {key: value for key, value in whole.items() if not key.startswith(UNSAVED)}
    with pytest.raises(CheckpointError, match="not its text tower"):
        convert(alone, "clipself")
    given, both = convert(alone, "clipself", "--clip", str(tmp_path / "clip.pt")), convert(whole, "clipself")
    assert given.text.fingerprint() == both.text.fingerprint() and given.logit_scale == both.logit_scale
    for key, value in both.encoder.state_dict().items():
        assert torch.equal(given.encoder.state_dict()[key], value), key
    assert given.extra["text_weights"] == "clip.pt"
    with pytest.raises(CheckpointError, match="leave --clip out"):
        convert(whole, "clipself", "--clip", str(tmp_path / "clip.pt"))


def test_what_does_not_fit_is_listed_and_nothing_written(convert, recorded, tmp_path):
    weights = recorded.weights()
    del weights["visual.blocks.5.mlp.w3.bias"]
    with pytest.raises(WeightsMismatchError) as error:
        convert({**weights, "visual.adapter.weight": torch.zeros(2)}, "declip")
    assert error.value.missing == ["visual.trunk.blocks.5.mlp.fc2.bias"]
    assert error.value.unexpected == ["visual.trunk.adapter.weight"]
    assert not (tmp_path / "out").exists()


def test_gated_constructions_are_not_offered(convert, recorded, capsys):
    with pytest.raises(SystemExit):
        convert(recorded.weights(), "denserc")
    assert "invalid choice: 'denserc'" in capsys.readouterr().err
