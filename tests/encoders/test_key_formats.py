"""Files in every format load exactly, and a file that is not a CLIP is refused with the reason."""

import re

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from denserc.encoders import build_clip, to_open_clip_keys
from denserc.encoders.key_formats import KeyFormat, key_format
from denserc.structures import CheckpointError, WeightsMismatchError
from tests.paths import FIXTURES
from tests.tiny_models import FOLDER

RECORDED = {"DenseRC-Test-CLIP": "hugging_face_clip", "DenseRC-Test-Sigmoid": "hugging_face_siglip"}
KEY_LISTS = FIXTURES / "encoders"


def hugging_face(name):
    """The recorded arrays, and the weights among them in float32."""
    with np.load(FOLDER / f"{RECORDED[name]}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    state = {k.removeprefix("weights/"): arrays.pop(k).float() for k in list(arrays) if k.startswith("weights/")}
    return arrays, state


@pytest.mark.parametrize("name", RECORDED)
@torch.no_grad()
def test_hugging_face_files_give_the_librarys_embeddings(tmp_path, name):
    arrays, state = hugging_face(name)
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # a buffer of older files
    save_file(state, tmp_path / "model.safetensors")
    clip = build_clip(name, str(tmp_path / "model.safetensors"))
    given = clip.image.eval().encode_image(arrays["images"])
    torch.testing.assert_close(given, arrays["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.text.text(arrays["ids"]), arrays["text"], atol=1e-5, rtol=0)
    assert clip.logit_scale == pytest.approx(state["logit_scale"].exp().item(), rel=1e-6)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (".q_proj.", ".k_proj."),
        (".v_proj.", ".q_proj."),
        ("layer_norm1", "layer_norm2"),
        ("encoder.layers.0", "encoder.layers.1"),
    ],
)
@torch.no_grad()
def test_parts_mixed_up_in_the_conversion_would_be_noticed(tmp_path, name, a, b):
    arrays, state = hugging_face(name)
    swapped = {k.replace(a, "#").replace(b, a).replace("#", b): v for k, v in state.items()}
    save_file(swapped, tmp_path / "model.safetensors")
    clip = build_clip(name, str(tmp_path / "model.safetensors"))
    assert (clip.image.eval().encode_image(arrays["images"]) - arrays["image"]).abs().max() > 1e-3
    assert (clip.text.text(arrays["ids"]) - arrays["text"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", RECORDED)
def test_hugging_face_file_with_missing_or_extra_key_is_refused(tmp_path, name):
    _, state = hugging_face(name)
    del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    state["vision_model.extra.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatchError) as caught:
        build_clip(name, str(tmp_path / "model.safetensors"))
    assert "text.transformer.resblocks.1.attn.in_proj_bias" in caught.value.missing
    assert any("extra.weight" in key for key in caught.value.unexpected)


@pytest.mark.parametrize(("name", "file"), [("EVA02-B-16", "eva_b16_keys"), ("EVA02-L-14-336", "eva_l14_336_keys")])
def test_files_of_eva_clip_clipself_and_declip_fit_exactly(name, file):
    """Names and shapes of CLIPSelf's own `CustomCLIP.state_dict()`: what its and DeCLIP's training scripts save."""
    lines = (KEY_LISTS / f"{file}.txt").read_text().splitlines()
    found = [re.match(r"[PB] (\S+) \(([\d, ]*)\)", line) for line in lines if not line.startswith("#")]
    shapes = {m[1]: tuple(int(n) for n in m[2].split(",") if n.strip()) for m in found}
    assert len(shapes) == len(found) > 400
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    with torch.device("meta"):
        model = open_clip.create_model(name, load_weights=False, force_custom_text=True, device="meta")
    expected = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in to_open_clip_keys(state).items()} == expected


def whole(miniature, visual="visual.", text="text."):
    state = {f"{visual}{k}": v.clone() for k, v in miniature.image.visual.state_dict().items()}
    state |= {f"{text}{k}": v.clone() for k, v in miniature.text.text.state_dict().items()}
    return state | {"logit_scale": torch.tensor(2.0)}


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_a_training_scripts_file_loads_with_its_wrappers(tmp_path, miniature, prefix):
    """As CLIPSelf and DeCLIP write it: epoch, name, state_dict, optimizer, scaler."""
    state = {prefix + key: value for key, value in whole(miniature).items()}
    extra = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5}]}}
    torch.save(
        {"epoch": 6, "name": "run", "state_dict": state, "scaler": {"scale": 65536.0}, **extra}, tmp_path / "e.pt"
    )
    clip = build_clip("DenseRC-Miniature", str(tmp_path / "e.pt"))
    assert all(
        torch.equal(v, miniature.image.visual.state_dict()[k]) for k, v in clip.image.visual.state_dict().items()
    )


def test_one_tower_alone_is_refused_by_what_is_lacking(tmp_path, miniature):
    for keep, lacking in (("visual.", "not its text tower"), ("text.", "no CLIP file")):
        torch.save({k: v for k, v in whole(miniature).items() if k.startswith(keep)}, tmp_path / "half.pt")
        with pytest.raises(CheckpointError, match=lacking):
            build_clip("DenseRC-Miniature", str(tmp_path / "half.pt"))
    trunk = {k.removeprefix("trunk."): v for k, v in miniature.image.visual.state_dict().items()}
    torch.save(trunk, tmp_path / "timm.pt")
    with pytest.raises(CheckpointError, match=r"image tower alone.*MODEL.ENCODER.WEIGHTS"):
        build_clip("DenseRC-Miniature", str(tmp_path / "timm.pt"))
    _, state = hugging_face("DenseRC-Test-CLIP")
    torch.save({k: v for k, v in state.items() if k.startswith("vision_model.")}, tmp_path / "vision.pt")
    with pytest.raises(CheckpointError, match="not its text tower"):
        build_clip("DenseRC-Test-CLIP", str(tmp_path / "vision.pt"))


def test_unknown_keys_are_refused_with_a_sample_and_the_formats():
    with pytest.raises(CheckpointError, match=r"x\.pt are those of no CLIP.*EVA-CLIP.*conv1\.weight"):
        to_open_clip_keys({"layer1.conv1.weight": torch.zeros(1)}, "x.pt")


def test_each_mark_tells_its_format(recorded):
    expected = {
        "vision_model.head.probe": KeyFormat.HUGGING_FACE_SIGLIP,
        "vision_model.embeddings.class_embedding": KeyFormat.HUGGING_FACE_CLIP,
        "text_projection": KeyFormat.ROOT_TEXT,
        "visual.trunk.norm.weight": KeyFormat.OPEN_CLIP,
        "blocks.0.norm1.weight": KeyFormat.IMAGE_TOWER,
    }
    assert {mark: key_format({mark: torch.zeros(1)}) for mark in expected} == expected
    assert key_format(recorded.weights()) is KeyFormat.EVA_CLIP


@pytest.mark.filterwarnings("ignore")  # torch calls its own format deprecated
def test_a_torchscript_archive_is_refused_with_what_to_do(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), tmp_path / "ViT-B-16.pt")
    with pytest.raises(CheckpointError, match="'openai'"):
        build_clip("DenseRC-Test-CLIP", str(tmp_path / "ViT-B-16.pt"))


def test_the_numbers_beside_openais_tensors_are_dropped():
    names = ("text_projection", "visual.proj", "input_resolution", "context_length", "vocab_size")
    assert set(to_open_clip_keys({name: torch.zeros(2, 2) for name in names})) == {
        "text.text_projection",
        "visual.proj",
    }
