"""Exported vision towers: the plain CLIPVisionModel, the registered type, what config.json and the log contain."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

pytest.importorskip("transformers", reason="needs denserc[llava]")

import transformers

from denserc import cli
from denserc.commands import choices
from denserc.construction import Construction, DenseEncoder, DenseModel, load_checkpoint, save_checkpoint
from denserc.encoders import build_clip
from denserc.mllm import DenseRCVisionModel, VisionFeature, build_vision_tower, check_tower, export_vision_tower
from denserc.mllm.clip_vision import reasons_against
from denserc.structures import CheckpointError, ConfigurationError, FingerprintMismatchError
from tests.tiny_models import register, tiny_config

VISION = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 4}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
TEXT |= {"vocab_size": 64, "max_position_embeddings": 12, "eos_token_id": 63, "bos_token_id": 62, "pad_token_id": 0}


def random_images(side=32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_plain_folder_equals_the_library_bit_for_bit(tmp_path):
    """transformers' CLIP -> DenseRC checkpoint -> exported folder -> the same hidden states."""
    config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
    torch.manual_seed(0)
    original = transformers.CLIPModel(config).eval()
    for parameter in original.parameters():
        parameter += torch.randn_like(parameter) * 0.1  # biases and norms too
    save_file(original.state_dict(), tmp_path / "clip.safetensors")
    clip = build_clip("DenseRC-Test-CLIP", str(tmp_path / "clip.safetensors"))
    encoder = DenseEncoder(clip.image, Construction.named("denserc")).eval()
    save_checkpoint(tmp_path / "denserc.safetensors", DenseModel(encoder, clip.text, clip.logit_scale))
    export_vision_tower(tmp_path / "denserc.safetensors", tmp_path / "tower")

    tower = transformers.CLIPVisionModel.from_pretrained(tmp_path / "tower")
    x = random_images()
    given = tower(x, output_hidden_states=True)
    expected = original.vision_model(x, output_hidden_states=True)
    assert len(given.hidden_states) == len(expected.hidden_states) == 5
    assert all(torch.equal(a, b) for a, b in zip(given.hidden_states, expected.hidden_states, strict=True))
    assert torch.equal(given.pooler_output, expected.pooler_output)
    _, (penultimate,) = encoder.forward_with_maps(x, [2], dense=False)
    assert torch.equal(given.hidden_states[-2][:, 1:], penultimate.flatten(2).transpose(1, 2))
    registered = build_vision_tower(tmp_path / "denserc.safetensors")
    assert torch.equal(given.hidden_states[-2][:, 1:], registered(x).hidden_states[-1])


@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_activation_and_image_size_travel(tmp_path, quick):
    name = register(tmp_path, f"DenseRC-Test-CLIP-{quick}", tiny_config("CLIP") | {"quick_gelu": quick})
    clip = build_clip(name, random_init=True)
    encoder = DenseEncoder(clip.image, Construction.named("denserc")).eval()
    save_checkpoint(tmp_path / "d.safetensors", DenseModel(encoder, clip.text, clip.logit_scale))
    tower = export_vision_tower(tmp_path / "d.safetensors", tmp_path / "tower", image_size=48)
    assert tower.config.hidden_act == ("quick_gelu" if quick else "gelu")
    loaded = transformers.CLIPVisionModel.from_pretrained(tmp_path / "tower")
    tokens = loaded(random_images(48), output_hidden_states=True).hidden_states[-2][:, 1:]
    _, (expected,) = encoder.forward_with_maps(random_images(48), [2], dense=False)
    assert torch.equal(tokens, expected.flatten(2).transpose(1, 2))


def test_the_plain_folder_has_what_older_readers_expect(checkpoints, tmp_path):
    """LLaVA's own code pins transformers 4.37, whose CLIPVisionModel names its weights so."""
    export_vision_tower(checkpoints["openai"], tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    assert metadata == {"format": "pt"} and all(key.startswith("vision_model.") for key in keys)
    block = {f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")} | {"mlp.fc1", "mlp.fc2"}
    block |= {"layer_norm1", "layer_norm2"}
    layers = {f"encoder.layers.{i}.{part}" for i in range(4) for part in block} | {"pre_layrnorm", "post_layernorm"}
    expected = {f"vision_model.{name}.{kind}" for name in layers for kind in ("weight", "bias")}
    expected |= {f"vision_model.embeddings.{n}" for n in ("class_embedding", "patch_embedding.weight")}
    assert keys == expected | {"vision_model.embeddings.position_embedding.weight"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["CLIPVisionModel"] and config["model_type"] == "clip_vision_model"
    assert config["denserc"]["feature"] == "penultimate" and "mean nothing" in config["denserc"]["note"]
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "CLIPImageProcessor" and processor["do_center_crop"]
    assert processor["crop_size"] == {"height": 32, "width": 32} and processor["size"] == {"shortest_edge": 32}
    pixels = load_checkpoint(checkpoints["openai"]).encoder.tower.pixels
    assert processor["image_mean"] == list(pixels.mean) and processor["image_std"] == list(pixels.std)


@pytest.mark.parametrize("family", ["eva", "siglip"])
def test_other_towers_are_of_the_registered_type(checkpoints, tmp_path, family, caplog):
    with caplog.at_level(logging.INFO, "denserc"):
        tower = export_vision_tower(checkpoints[family], tmp_path, feature="joined")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "denserc_vision"
    assert config["layer"] == tower.encoder.tower.depth - 2 and config["reason"] == VisionFeature.JOINED.reason
    assert config["construction"] == Construction.named("denserc").to_dict()
    for words in ("feature joined (after block", f"{config['hidden_size']} channels", config["reason"], "pixel mean"):
        assert words in caplog.text
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert type(processor) is transformers.LlavaImageProcessor and processor.do_pad
    pixels = processor(np.zeros((20, 40, 3), np.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == (tower.config.image_size,) * 2


def test_the_command_chooses_the_type(checkpoints, tmp_path, capsys):
    def model_type(*options):
        assert cli.main(["export", "vision-tower", *map(str, options)]) == 0
        return json.loads((options[1] / "config.json").read_text())["model_type"]

    assert model_type(checkpoints["openai"], tmp_path / "a") == "clip_vision_model"
    assert "CLIPVisionModel, 32 channels" in capsys.readouterr().out
    assert model_type(checkpoints["openai"], tmp_path / "b", "--registered") == "denserc_vision"
    assert model_type(checkpoints["openai"], tmp_path / "c", "--feature", "dense") == "denserc_vision"
    assert model_type(checkpoints["eva"], tmp_path / "d") == "denserc_vision"


def test_the_commands_features_are_the_enums():
    assert choices.VISION_FEATURES == tuple(feature.value for feature in VisionFeature)


def test_what_cannot_be_plain_is_refused_with_the_reason(checkpoints, tmp_path, capsys):
    with pytest.raises(ConfigurationError, match="EvaTower, not the ViT of OpenAI's CLIP.*--plain"):
        export_vision_tower(checkpoints["eva"], tmp_path, plain=True)
    with pytest.raises(ConfigurationError, match="'penultimate' only; 'dense'"):
        export_vision_tower(checkpoints["openai"], tmp_path, feature="dense", plain=True)
    assert cli.main(["export", "vision-tower", str(checkpoints["siglip"]), str(tmp_path), "--plain"]) == 2
    assert "error: DenseRC-Test-Sigmoid cannot be written as a plain CLIPVisionModel" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_each_deviation_from_the_library_is_found(checkpoints):
    def tower():
        return load_checkpoint(checkpoints["openai"]).encoder.tower

    assert reasons_against(tower()) == []
    scaled, norm, biased = tower(), tower(), tower()
    scaled.blocks[0].ls_1 = torch.nn.Linear(1, 1)
    norm.blocks[0].ln_1.eps = 1e-6
    biased.visual.conv1 = torch.nn.Conv2d(3, 32, 8, 8)
    for changed, words in ((scaled, "layer scales"), (norm, "different epsilons"), (biased, "bias")):
        assert len(reasons_against(changed)) == 1 and words in reasons_against(changed)[0]
    approximate = tower()
    for block in approximate.blocks:
        block.mlp.gelu = torch.nn.GELU("tanh")
    assert "approximation" in reasons_against(approximate)[0]


def test_files_that_are_no_checkpoint_are_refused(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="no DenseRC checkpoint at"):
        build_vision_tower(tmp_path / "absent.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="lacks the 'denserc' metadata"):
        export_vision_tower(tmp_path / "plain.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tower_is_compared_with_its_checkpoint(checkpoints, tmp_path):
    for family, plain in (("openai", True), ("openai", False), ("eva", False)):
        tower = export_vision_tower(checkpoints[family], tmp_path / "tower", plain=plain)
        loaded = transformers.AutoModel.from_pretrained(tmp_path / "tower")
        check_tower(loaded)
        check_tower(loaded, checkpoints[family])
        check_tower(loaded.bfloat16())
        check_tower(loaded, checkpoints[family])
        random = transformers.AutoModel.from_config(tower.config)
        with pytest.raises(FingerprintMismatchError, match="has other values; .* more.* random"):
            check_tower(random, checkpoints[family])
        with pytest.raises(FingerprintMismatchError, match="random, as in a model built from a configuration"):
            check_tower(random)
    with pytest.raises(FingerprintMismatchError, match="encoder is 'DenseRC-Miniature', .* has 'DenseRC-Test-CLIP'"):
        check_tower(loaded, checkpoints["openai"])
    with pytest.raises(ConfigurationError, match="no DenseRC vision tower in Linear"):
        check_tower(torch.nn.Linear(1, 1), checkpoints["eva"])


def test_a_folder_of_other_weights_is_refused(checkpoints, tmp_path):
    """Weights of another encoder beside this configuration, as after a path was changed."""
    tower = export_vision_tower(checkpoints["eva"], tmp_path)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(1.01)
    state = {key: value.contiguous() for key, value in tower.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = DenseRCVisionModel.from_pretrained(tmp_path)
    with pytest.raises(FingerprintMismatchError, match="another encoder's"):
        loaded(torch.zeros(1, 3, 64, 64))
