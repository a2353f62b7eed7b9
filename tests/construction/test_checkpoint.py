import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from denserc.construction import Construction, DenseEncoder, DenseModel, load_checkpoint, read_metadata, save_checkpoint
from denserc.encoders import PositionResize
from denserc.structures import (
    CheckpointError,
    ConfigurationError,
    FingerprintMismatchError,
    PixelStatistics,
    WeightsMismatchError,
)


@pytest.fixture()
def model(miniature):
    encoder = DenseEncoder(miniature.image, Construction.named("denserc_per_layer"))
    torch.nn.init.normal_(encoder.gates.projections[1].weight)
    return DenseModel(encoder.eval(), miniature.text, miniature.logit_scale, {"seed": 7})


@torch.no_grad()
def test_a_path_alone_brings_the_same_model_back(tmp_path, model):
    model.encoder.tower.pixels = PixelStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    path = tmp_path / "deep" / "denserc.safetensors"
    save_checkpoint(path, model)
    loaded = load_checkpoint(path)
    images = torch.randn(1, 3, 64, 32)
    assert torch.equal(loaded.encoder.eval()(images), model.encoder(images))
    assert torch.equal(loaded.text.encode_text(["a red disc"]), model.text.encode_text(["a red disc"]))
    assert loaded.encoder.construction == model.encoder.construction
    assert loaded.encoder.tower.pixels == model.encoder.tower.pixels
    assert loaded.extra == {"seed": 7}
    assert loaded.logit_scale == pytest.approx(model.logit_scale, rel=1e-6)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no partial file is left


def test_a_product_of_random_weights_says_so(tmp_path, model, caplog):
    model.extra["encoder_weights"] = "RANDOM"
    save_checkpoint(tmp_path / "m.safetensors", model)
    load_checkpoint(tmp_path / "m.safetensors")
    assert "RANDOM WEIGHTS" in caplog.text


def test_metadata_says_everything_without_loading_tensors(tmp_path, model):
    save_checkpoint(tmp_path / "m.safetensors", model)
    metadata = read_metadata(tmp_path / "m.safetensors")
    assert (metadata.encoder, metadata.patch_size) == ("DenseRC-Miniature", 8)
    assert metadata.text_fingerprint == model.text.fingerprint()


def _rewrite(path, change_tensors=lambda t: t, change_metadata=lambda m: m):
    metadata = json.loads(json.dumps(read_metadata(path).__dict__))
    tensors = change_tensors(load_file(path))
    save_file(tensors, path, metadata={"denserc": json.dumps(change_metadata(metadata))})


def test_damaged_or_foreign_files_are_refused(tmp_path, model):
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match="no DenseRC checkpoint at"):
        load_checkpoint(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="MODEL.ENCODER.WEIGHTS"):
        load_checkpoint(path)
    save_checkpoint(path, model)
    _rewrite(path, change_metadata=lambda m: m | {"version": 99})
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(path)
    save_checkpoint(path, model)
    _rewrite(path, lambda t: {k: v for k, v in t.items() if not k.startswith("gates")})
    with pytest.raises(WeightsMismatchError, match="gates.projections.0.weight"):
        load_checkpoint(path)
    save_checkpoint(path, model)
    _rewrite(path, change_metadata=lambda m: m | {"position_resize": "nearest"})
    with pytest.raises(ConfigurationError, match="bicubic_antialias"):
        load_checkpoint(path)
    save_checkpoint(path, model)
    _rewrite(path, change_metadata=lambda m: m | {"text_fingerprint": "another"})
    with pytest.raises(FingerprintMismatchError, match="another"):
        load_checkpoint(path)


@torch.no_grad()
def test_checkpoint_stores_the_position_resize_with_a_default(tmp_path, model):
    model.encoder.tower.position_resize = PositionResize.BICUBIC_ANTIALIAS
    path, images = tmp_path / "m.safetensors", torch.randn(1, 3, 32, 32)
    save_checkpoint(path, model)
    other = load_checkpoint(path).encoder.eval()(images)
    assert torch.equal(other, model.encoder(images))
    _rewrite(path, change_metadata=lambda m: {k: v for k, v in m.items() if k != "position_resize"})
    older = load_checkpoint(path).encoder
    assert older.tower.position_resize is PositionResize.BICUBIC
    assert not torch.equal(older.eval()(images), other)


def test_open_clip_itself_can_load_the_tensors(tmp_path, model):
    import open_clip

    save_checkpoint(tmp_path / "m.safetensors", model)
    tensors = {k: v for k, v in load_file(tmp_path / "m.safetensors").items() if not k.startswith("gates.")}
    open_clip.create_model("DenseRC-Miniature", load_weights=False).load_state_dict(tensors, strict=True)
