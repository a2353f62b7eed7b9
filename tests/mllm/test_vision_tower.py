"""The tower's contract with LLaVA: tokens, ignored arguments, frozen weights, fingerprint, exact loading."""

import logging

import pytest
import torch

pytest.importorskip("transformers", reason="needs denserc[llava]")

from transformers import AutoConfig, AutoModel

from denserc.construction import load_checkpoint
from denserc.mllm import DenseRCVisionConfig, DenseRCVisionModel, VisionFeature, build_vision_tower
from denserc.mllm.fingerprint import weights
from denserc.structures import ConfigurationError, DataError, FingerprintMismatchError
from tests.mllm.conftest import FAMILIES

FEATURES = [feature.value for feature in VisionFeature]


def images(tower, size=None):
    """Two random images, of the tower's size by default."""
    height, width = size or (tower.config.image_size,) * 2
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_tokens_are_the_encoders_maps_row_by_row(checkpoints, family, feature):
    # torch.matmul folds a batch into one product or not by requires_grad, even without gradients: other roundings.
    encoder = load_checkpoint(checkpoints[family]).encoder.eval().requires_grad_(False)
    tower = build_vision_tower(checkpoints[family], feature)
    x = images(tower, (16, 24))
    dense, (penultimate,) = encoder.forward_with_maps(x, [encoder.tower.depth - 2])
    expected = {
        "penultimate": penultimate,
        "dense": encoder(x),
        "joined": torch.cat([penultimate, dense], dim=1),
    }[feature]
    output = tower(x)
    (tokens,) = output.hidden_states
    assert tokens.shape == (2, 6, tower.config.hidden_size) == (2, 6, expected.shape[1])
    assert torch.equal(tokens[:, 4], expected[:, :, 1, 1])  # row 1, column 1 of 2 x 3
    assert torch.equal(tokens, expected.flatten(2).transpose(1, 2))
    assert torch.equal(output.last_hidden_state, tokens)


def test_other_arguments_are_ignored(checkpoints):
    tower = build_vision_tower(checkpoints["eva"])
    x = images(tower)
    plain = tower(x).hidden_states[-1]
    given = tower(x, return_dict=False, output_hidden_states=0, num_items_in_batch=3, output_attentions=True, foo="bar")
    assert torch.equal(given.hidden_states[-1], plain)
    given.pooler_output = "assigned by LLaVA"


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load_are_bitwise_equal(checkpoints, tmp_path, family, feature):
    tower = build_vision_tower(checkpoints[family], feature)
    tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is DenseRCVisionModel and not loaded.training
    assert loaded.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    state = tower.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    buffers = dict(tower.named_buffers())
    assert all(torch.equal(value, buffers[key]) for key, value in loaded.named_buffers())
    assert torch.equal(loaded(images(tower)).hidden_states[-1], tower(images(tower)).hidden_states[-1])
    pixels = loaded.encoder.tower.pixels
    assert pixels == load_checkpoint(checkpoints[family]).encoder.tower.pixels


def test_buffers_outside_the_state_dict_are_restored(checkpoints):
    tower = build_vision_tower(checkpoints["eva"])
    saved = set(tower.state_dict())
    lost = {name: value.clone() for name, value in tower.named_buffers() if name not in saved}
    assert lost  # timm's rotary tables
    for name, value in tower.named_buffers():
        if name in lost:
            value.fill_(float("nan"))
    for module in tower.modules():  # as transformers does after it loaded a state dict
        tower._init_weights(module)
    assert all(torch.equal(value, lost[name]) for name, value in tower.named_buffers() if name in lost)


def test_initialization_leaves_loaded_weights_alone(checkpoints):
    tower = build_vision_tower(checkpoints["openai"], plain=False)
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    tower.initialize_weights()
    assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_identity(checkpoints, tmp_path, dtype):
    tower = build_vision_tower(checkpoints["eva"], "joined")
    tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    tokens = loaded(images(tower)).hidden_states[-1]  # images arrive in float32
    assert tokens.dtype == dtype
    expected = tower(images(tower)).hidden_states[-1]
    assert (tokens - expected).norm() < 0.05 * expected.norm()
    loaded.float().check_weights()  # rounded weights are still the tower's
    loaded.save_pretrained(tmp_path)
    AutoModel.from_pretrained(tmp_path, dtype=torch.float32).check_weights()


def test_training_mode_and_gradients_are_refused(checkpoints):
    tower = build_vision_tower(checkpoints["eva"], "joined")
    parent = torch.nn.Sequential(tower)
    parent.requires_grad_(True).train()
    assert parent.training and not any(module.training for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    for parameter in tower.parameters():  # and if somebody asks for gradients after that
        parameter.requires_grad_(True)
    x = images(tower).requires_grad_()
    assert not tower(x).hidden_states[-1].requires_grad


def random_tower(tower):
    """A tower from only the configuration, as LLaVA builds it."""
    return AutoModel.from_config(tower.config)


def test_a_random_tower_is_refused_at_its_first_image(checkpoints):
    tower = build_vision_tower(checkpoints["eva"])
    random = random_tower(tower)
    with pytest.raises(FingerprintMismatchError, match="DenseRC-Miniature does not hold .* random"):
        random(images(tower))
    random.load_state_dict(tower.state_dict())
    assert torch.equal(random(images(tower)).hidden_states[-1], tower(images(tower)).hidden_states[-1])


def test_one_changed_weight_is_noticed(checkpoints, tmp_path):
    tower = build_vision_tower(checkpoints["siglip"])
    tower.check_weights()
    with torch.no_grad():
        next(tower.encoder.gates.parameters())[0, 0] += 1e-3
    with pytest.raises(FingerprintMismatchError, match="DenseRC-Test-Sigmoid"):
        tower.check_weights()


def test_a_configuration_without_fingerprint_is_refused(checkpoints):
    tower = build_vision_tower(checkpoints["eva"])
    tower.config.fingerprints = None
    with pytest.raises(FingerprintMismatchError, match="no fingerprint.*denserc export"):
        tower(images(tower))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fingerprint_covers_the_whole_state(checkpoints, family):
    encoder = load_checkpoint(checkpoints[family]).encoder
    encoder.register_buffer("counted", torch.zeros(1))
    encoder.register_buffer("ignored", torch.zeros(1), persistent=False)
    state, found = encoder.state_dict(), weights(encoder)
    assert state.keys() == found.keys() and "counted" in found
    assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_sharded_weights_are_not_compared(checkpoints, caplog):
    tower = build_vision_tower(checkpoints["openai"]).to("meta")
    with caplog.at_level(logging.WARNING):
        tower.check_weights()
    assert "fingerprint was not checked" in caplog.text


def test_illegal_configurations_are_refused(checkpoints):
    with pytest.raises(ConfigurationError, match="'last'; legal are 'penultimate', 'dense', 'joined'"):
        build_vision_tower(checkpoints["eva"], "last")
    with pytest.raises(ConfigurationError, match="60 is not a multiple of the patch size 8; the nearest are 56 and 64"):
        build_vision_tower(checkpoints["eva"], image_size=60)
    with pytest.raises(ConfigurationError, match="describes no tower"):
        DenseRCVisionModel(DenseRCVisionConfig())
    config = build_vision_tower(checkpoints["eva"]).config
    config.hidden_size = 256
    with pytest.raises(ConfigurationError, match="hidden_size is 256, expected 128"):
        DenseRCVisionModel(config)


def test_an_image_that_the_patch_does_not_divide_is_refused(checkpoints):
    tower = build_vision_tower(checkpoints["eva"])
    with pytest.raises(DataError, match="patch size 8 divides"):
        tower(torch.zeros(1, 3, 64, 60))
