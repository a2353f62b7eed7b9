"""Published CAT-Seg files (over OpenAI's CLIP, and DeCLIP's over EVA-CLIP) as checkpoints of ours."""

import re

import open_clip
import pytest
import torch

from denserc.commands.convert_catseg import main
from denserc.config import get_denserc_config
from denserc.construction import CONSTRUCTIONS
from denserc.detection import load_detector
from denserc.segmentation.convert import from_catseg
from denserc.segmentation.modeling.aggregation import Aggregator
from denserc.structures import CheckpointError, ConfigurationError, WeightsMismatchError
from denserc.tools.convert_catseg import _PUBLISHED, published_config
from tests.paths import CONFIGS, DATA
from tests.segmentation.recorded import EVALUATIONS, recorded_config

KEYS = DATA / "fixtures" / "catseg"
EVA_KEYS = DATA / "fixtures" / "encoders"
CLIP = "sem_seg_head.predictor.clip_model."


@pytest.fixture()
def published(tmp_path, recordings, recorded_encoder):
    """convert(state) -> path of the checkpoint that the command writes."""

    def convert(state):
        torch.save({"model": state, "iteration": 79999}, tmp_path / "model_base.pth")
        config = recorded_config(recordings.config, recorded_encoder)
        (tmp_path / "own.yaml").write_text(config.dump())
        output = tmp_path / "ours.pth"
        main([str(tmp_path / "model_base.pth"), str(output), "--config", str(tmp_path / "own.yaml")])
        return output

    return convert


def test_a_published_file_segments_as_the_original(published, recordings, capsys):
    state = recordings.published_state()
    window = recordings.config["head"]["window_size"] ** 2
    shifted = [key for key in state if key.endswith("block_2.norm1.weight")]
    for key in shifted:  # buffers of a published file
        state[key.replace("norm1.weight", "attn_mask")] = torch.zeros(4, window, window)
    model = load_detector(published(state))
    said = capsys.readouterr().out
    assert f"read {len(state)} entries" in said and f"left out knowingly: {1 + len(shifted)}" in said
    picture, size, classes, _ = EVALUATIONS["eval_slide"]
    model.set_vocabulary(recordings.config[classes])
    height, width = recordings.config[size]
    one = {"image": recordings.tensor("inputs", picture), "height": height, "width": width}
    assert recordings.difference("eval_slide", "sem_seg", model([one])[0]["sem_seg"]) <= 1


def test_what_does_not_fit_is_listed_in_full(published, recordings, tmp_path):
    state = recordings.published_state()
    strangers = [f"sem_seg_head.predictor.sam.{i}.weight" for i in range(30)]
    with pytest.raises(WeightsMismatchError) as error:
        published({**state, **{key: torch.zeros(1) for key in strangers}})
    assert error.value.unexpected == sorted(strangers)
    state["upsample1.bias"] = torch.zeros(1)
    del state["sem_seg_head.predictor.transformer.head.bias"]
    with pytest.raises(WeightsMismatchError, match="--config") as error:
        published(state)
    assert error.value.missing == ["aggregator.head.bias"]
    assert [key for key, _, _ in error.value.misshapen] == ["guidance_upsamplers.0.bias"]
    assert not (tmp_path / "ours.pth").exists()
    with pytest.raises(CheckpointError, match="no CAT-Seg"):
        published({"visual.blocks.0.norm1.weight": torch.zeros(1)})


def key_list(path):
    """{name: shape} of a key list with lines "name<TAB>(shape)<TAB>kind"."""
    found = re.findall(r"^(\S+)\t\(([\d, ]*)\)\t", path.read_text(), re.MULTILINE)
    return {key: [int(n) for n in shape.split(",") if n.strip()] for key, shape in found}


def eva_key_list(path):
    found = re.findall(r"^[PB] (\S+) \(([\d, ]*)\)", path.read_text(), re.MULTILINE)
    return {f"{CLIP}{key}": [int(n) for n in shape.split(",") if n.strip()] for key, shape in found}


def expected_shapes(config):
    """Names and shapes of the model of a configuration, built without memory."""
    cfg = get_denserc_config()
    cfg.merge_from_file(str(CONFIGS / f"{config}.yaml"))
    with torch.device("meta"):
        clip = open_clip.create_model(cfg.MODEL.ENCODER.NAME, force_custom_text=True, device="meta", load_weights=False)
        embed_dim = open_clip.get_model_config(cfg.MODEL.ENCODER.NAME)["embed_dim"]
        aggregator = Aggregator(embed_dim=embed_dim)
    shapes = {f"aggregator.{key}": list(value.shape) for key, value in aggregator.state_dict().items()}
    shapes |= {f"encoder.tower.visual.{key}": list(value.shape) for key, value in clip.visual.state_dict().items()}
    shapes |= {f"text_tower.text.{key}": list(value.shape) for key, value in clip.text.state_dict().items()}
    return shapes


@pytest.mark.parametrize(
    ("file", "eva_file", "config"),
    [
        ("catseg_keys_b16", None, "catseg_openai_vitb16"),
        ("catseg_keys_l14_336", None, "catseg_openai_vitl14"),
        ("catseg_keys_b16", "eva_b16_keys", "catseg_vitb16"),
        ("catseg_keys_l14_336", "eva_l14_336_keys", "catseg_vitl14"),
    ],
)
def test_every_key_of_the_published_sizes_has_its_place(file, eva_file, config):
    """Names and shapes of all four published models, without weights."""
    if not KEYS.is_dir():
        pytest.skip(f"the key lists are not at {KEYS}")
    keys = key_list(KEYS / f"{file}.txt")
    if eva_file is not None:
        keys = {key: shape for key, shape in keys.items() if not key.startswith(CLIP)}
        keys |= eva_key_list(EVA_KEYS / f"{eva_file}.txt")
    state = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    name, _ = published_config(state, file)
    assert name == config
    converted = {key: list(value.shape) for key, value in from_catseg(state).items()}
    ups = {key: converted.pop(key) for key in list(converted) if key.startswith("guidance_upsamplers.")}
    converted.pop("logit_scale", None)
    assert converted == expected_shapes(config)
    width = 768 if "b16" in config else 1024
    assert ups["guidance_upsamplers.0.weight"] == [width, 256, 2, 2]
    assert ups["guidance_upsamplers.1.weight"] == [width, 128, 4, 4] and len(ups) == 4


def test_unknown_sizes_need_a_configuration(recordings):
    with pytest.raises(ConfigurationError, match="--config"):
        published_config({f"{CLIP}visual.class_embedding": torch.zeros(48)}, "a tiny one")
    with pytest.raises(ConfigurationError, match="--config"):
        published_config({}, "nothing")
    for name, settings in _PUBLISHED.values():
        cfg = get_denserc_config()
        cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
        cfg.merge_from_list(list(settings))
        assert cfg.MODEL.CONSTRUCTION.NAME in CONSTRUCTIONS and cfg.MODEL.CATSEG.TRAIN.TEXT in ("qv", "qkv")
