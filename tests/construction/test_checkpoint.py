import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from denserc.construction import Construction, DenseEncoder, DenseModel, load_checkpoint, read_metadata, save_checkpoint
from denserc.encoders import PositionResize
from denserc.structures import (
    CheckpointError,
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
    with pytest.raises(CheckpointError, match="is not a DenseRC checkpoint: it is text"):
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
    with pytest.raises(
        CheckpointError, match="m.safetensors: position_resize .* legal are 'bicubic', 'bicubic_antialias'"
    ):
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


def _described(change):
    """(name, change of the metadata's mapping, or the whole text)."""
    return lambda whole: change if isinstance(change, str | None) else json.dumps({**whole, **change})


DAMAGED = {
    "unknown": (_described({"more": 1}), r"unknown are \['more'\]"),
    "no JSON": (_described("{junk"), "is not JSON"),
    "a list": (_described("[1]"), "is not a mapping"),
    "extra": (_described({"extra": None}), "extra is None"),
    "construction": (_described({"construction": None}), "construction is None"),
    "unknown construction": (_described({"construction": {"more": 1}}), "construction does not fit.*more"),
    "blocks": (_described({"construction": {"num_blocks": 99}}), "construction does not fit.*99 blocks"),
    "gate": (_described({"construction": {"gate_position": "middle"}}), "gate_position is 'middle'"),
    "gate list": (_described({"construction": {"gate_position": []}}), r"gate_position is \[\]"),
    "mean text": (_described({"pixel_mean": "abc"}), "pixel_mean is 'abc'"),
    "mean nested": (_described({"pixel_mean": [[0.1]] * 3}), "pixel_mean is"),
    "mean short": (_described({"pixel_mean": [0.1]}), "pixel_mean or pixel_std does not fit"),
    "std zero": (_described({"pixel_std": [0.1, 0, 0.1]}), "pixel_mean or pixel_std does not fit"),
    "std NaN": (_described({"pixel_std": [0.1, float("nan"), 0.1]}), "pixel_std is"),
    "encoder": (_described({"encoder": "nothing"}), "encoder does not fit.*'nothing'"),
    "encoder number": (_described({"encoder": 3}), "encoder is 3"),
    "patch size": (_described({"patch_size": 16}), "patch_size is 16, but DenseRC-Miniature has 8"),
    "version": (_described({"version": True}), "format version True"),
    "fingerprint": (_described({"text_fingerprint": None}), "text_fingerprint is None"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_metadata_name_file_and_field(tmp_path, model, case):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    with safe_open(path, "pt") as file:
        whole = json.loads(file.metadata()["denserc"])
    change, told = DAMAGED[case]
    save_file(load_file(path), path, metadata={"denserc": change(whole)})
    with pytest.raises(CheckpointError, match=rf"m\.safetensors.*{told}"):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["version", "encoder", "construction", "pixel_mean", "patch_size", "extra"])
def test_a_missing_field_is_named(tmp_path, model, key):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    _rewrite(path, change_metadata=lambda m: {k: v for k, v in m.items() if k != key})
    told = "format version None" if key == "version" else rf"missing are \['{key}'\]"
    with pytest.raises(CheckpointError, match=rf"m\.safetensors.*{told}"):
        load_checkpoint(path)


SCALES = {
    "absent": (None, "lacks the tensor logit_scale"),
    "NaN": (torch.tensor(float("nan")), "logit_scale of .* is nan"),
    "infinite": (torch.tensor(float("inf")), "logit_scale of .* is inf"),
    "too large": (torch.tensor(1e4), "logit_scale of .* is 10000"),
    "a list": (torch.ones(3), r"logit_scale of .* is torch.float32 \(3,\)"),
    "whole": (torch.tensor(3), "logit_scale of .* is torch.int64"),
}


@pytest.mark.parametrize("case", SCALES)
def test_the_temperature_is_never_guessed(tmp_path, model, case):
    value, told = SCALES[case]
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    _rewrite(path, lambda t: {k: v for k, v in {**t, "logit_scale": value}.items() if v is not None})
    with pytest.raises(CheckpointError, match=rf"m\.safetensors.*{told}|{told}"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["visual.trunk.blocks.0.norm1.weight", "text.ln_final.bias"])
def test_a_flipped_bit_is_told(tmp_path, model, name):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    wanted = load_file(path)[name].numpy().tobytes()
    data = path.read_bytes()
    at = data.rindex(wanted)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(CheckpointError, match="its tensors are not those that were written"):
        load_checkpoint(path)


@pytest.mark.parametrize(("old", "new"), [(b"bicubic", b"bicubid"), (b'\\"seed\\": 7', b'\\"seed\\": 8')])
def test_a_changed_description_is_told(tmp_path, model, old, new):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(CheckpointError, match="metadata of .*m.safetensors were changed"):
        read_metadata(path)


def test_the_tensor_that_is_not_finite_is_named(tmp_path, model):
    path, name = tmp_path / "m.safetensors", "visual.trunk.blocks.0.norm1.weight"
    save_checkpoint(path, model)
    _rewrite(path, lambda t: t | {name: t[name] * float("nan")})
    with pytest.raises(CheckpointError, match=rf"m\.safetensors hold NaN or infinite values: {name}"):
        load_checkpoint(path)
