"""A whole LLaVA over exported towers: generation after loading, the Trainer, LoRA, and what does not fit."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs denserc[llava]")

from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from denserc import cli
from denserc.mllm import (
    build_llava,
    build_vision_tower,
    check_processor,
    check_tower,
    export_llava,
    find_tower,
    require_training_packages,
)
from denserc.structures import CheckpointError, ConfigurationError, FingerprintMismatchError
from tests.mllm.conftest import FAMILIES, write_checkpoint

PROMPT = "USER: <image> is there a red ball ? ASSISTANT:"
CASES = [(family, feature, False) for family in FAMILIES for feature in ("penultimate", "dense", "joined")]
CASES += [("openai", "penultimate", True)]


def photo(height=40, width=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def answer(model, processor):
    """Generated ids, and the logits of the prompt."""
    inputs = processor(images=photo(), text=PROMPT, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        return ids, model(**inputs).logits


def load(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.fixture
def llava(checkpoints, language_model):
    """A LLaVA over the packaged miniature tower, and its processor."""
    text = AutoModelForCausalLM.from_pretrained(language_model)
    return build_llava(text, AutoTokenizer.from_pretrained(language_model), build_vision_tower(checkpoints["eva"]))


@pytest.mark.parametrize(("family", "feature", "plain"), CASES)
def test_save_load_generate_is_bitwise_equal(checkpoints, language_model, tmp_path, family, feature, plain):
    tower = build_vision_tower(checkpoints[family], feature, plain=plain)
    text = AutoModelForCausalLM.from_pretrained(language_model)
    model, processor = build_llava(text, AutoTokenizer.from_pretrained(language_model), tower)
    ids, logits = answer(model, processor)
    assert ids.shape[1] > logits.shape[1]
    export_llava(language_model, checkpoints[family], tmp_path / "a", feature=feature, plain=plain)
    for folder in ("a", "b"):
        loaded, loaded_processor = load(tmp_path / folder)
        check_tower(loaded, checkpoints[family])
        check_processor(loaded_processor, loaded)
        loaded_ids, loaded_logits = answer(loaded, loaded_processor)
        assert torch.equal(loaded_ids, ids) and torch.equal(loaded_logits, logits)
        loaded.save_pretrained(tmp_path / "b")
        loaded_processor.save_pretrained(tmp_path / "b")


def test_the_picture_matters(llava):
    model, processor = llava
    _, logits = answer(model, processor)
    inputs = processor(images=photo(60, 40), text=PROMPT, return_tensors="pt")
    assert not torch.equal(model(**inputs).logits, logits)


def test_the_plain_and_the_registered_tower_answer_alike(checkpoints, language_model, tmp_path):
    for name, plain in (("plain", True), ("registered", False)):
        export_llava(language_model, checkpoints["openai"], tmp_path / name, plain=plain)
    (ids, logits), (other_ids, other_logits) = (answer(*load(tmp_path / name)) for name in ("plain", "registered"))
    assert torch.equal(ids, other_ids) and torch.equal(logits, other_logits)


def test_the_folder_names_no_folder_of_this_machine(checkpoints, language_model, tmp_path):
    export_llava(language_model, checkpoints["eva"], tmp_path / "out")
    for file in (tmp_path / "out").glob("*.json"):
        assert str(language_model) not in file.read_text()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vision_config"]["feature"] == "penultimate" and config["vision_config"]["reason"]
    assert config["vision_feature_layer"] == -1 and config["vision_feature_select_strategy"] == "full"
    assert config["image_seq_length"] == 64


def test_the_command_warns_of_the_projector(checkpoints, language_model, tmp_path, capsys):
    words = [str(language_model), str(checkpoints["eva"]), str(tmp_path / "out"), "--dtype", "bfloat16"]
    assert cli.main(["export", "llava", *words, "--feature", "joined"]) == 0
    printed = capsys.readouterr()
    assert "projector has RANDOM WEIGHTS" in printed.out + printed.err and "not trained" in printed.out
    model, processor = load(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    check_tower(model, checkpoints["eva"])
    answer(model, processor)


def test_seeds_change_the_projector_only(checkpoints, language_model, tmp_path):
    for seed in (0, 1):
        export_llava(language_model, checkpoints["eva"], tmp_path / str(seed), seed=seed)
    (a, _), (b, _) = load(tmp_path / "0"), load(tmp_path / "1")
    differ = {key for key, value in a.state_dict().items() if not torch.equal(value, b.state_dict()[key])}
    assert differ == {key for key in a.state_dict() if "projector" in key}


def test_tied_embeddings_stay_tied(checkpoints, language_model, tmp_path):
    text = AutoModelForCausalLM.from_pretrained(language_model, tie_word_embeddings=True)
    text.tie_weights()
    text.save_pretrained(tmp_path / "text")
    AutoTokenizer.from_pretrained(language_model).save_pretrained(tmp_path / "text")
    export_llava(tmp_path / "text", checkpoints["eva"], tmp_path / "llava")
    model, _ = load(tmp_path / "llava")
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_the_image_token_gets_a_finite_row_and_others_stay(checkpoints, language_model, llava):
    model, processor = llava
    before = AutoModelForCausalLM.from_pretrained(language_model).get_input_embeddings().weight
    after = model.get_input_embeddings().weight
    assert len(after) == len(before) + 1 and torch.equal(after[:-1], before)
    torch.testing.assert_close(after[-1], before.mean(0))
    assert processor.tokenizer.pad_token == "<unk>" and model.config.image_token_id == len(before)


@pytest.mark.filterwarnings("ignore:.* is deprecated and will be removed in v6:FutureWarning")
def test_a_trainer_moves_the_rest_alone(llava, tmp_path):
    """The Trainer calls train(), decays weights, and passes arguments to the tower that it does not know."""
    require_training_packages()
    from transformers import Trainer, TrainingArguments

    model, processor = llava
    model.requires_grad_(True)
    item = dict(processor(images=photo(), text=PROMPT + " yes </s>", return_tensors="pt"))
    item["labels"] = item["input_ids"].masked_fill(item["input_ids"] == model.config.image_token_id, -100)
    data = [{key: value[0] for key, value in item.items()}] * 4
    before = {key: value.clone() for key, value in model.state_dict().items()}
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, learning_rate=0.1, weight_decay=0.1, use_cpu=True,
        report_to=[], save_strategy="no", gradient_checkpointing=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=data).train()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if "vision_tower" not in key}
    tower = find_tower(model)
    assert model.training and not any(module.training for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.filterwarnings("ignore:.* is deprecated and will be removed in v6:FutureWarning")
def test_lora_leaves_the_tower_alone(llava, checkpoints):
    peft = pytest.importorskip("peft", reason="needs denserc[llava]")
    model, processor = llava
    before = {key: value.clone() for key, value in find_tower(model).state_dict().items()}
    config = peft.LoraConfig(
        r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", modules_to_save=["multi_modal_projector"]
    )
    adapted = peft.get_peft_model(model, config)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name or "multi_modal_projector" in name for name in trained)
    optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=0.1)
    inputs = processor(images=photo(), text=PROMPT, return_tensors="pt")
    adapted.train()
    adapted(**inputs, labels=inputs["input_ids"]).loss.backward()
    optimizer.step()
    check_tower(adapted, checkpoints["eva"])
    merged = adapted.merge_and_unload()
    after = find_tower(merged).state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert not find_tower(merged).training


def test_a_model_from_a_configuration_alone_is_refused(llava, checkpoints):
    """transformers builds it without a warning; its tower is random."""
    model, processor = llava
    random = LlavaForConditionalGeneration(model.config)
    with pytest.raises(FingerprintMismatchError, match="random"):
        check_tower(random, checkpoints["eva"])
    with pytest.raises(FingerprintMismatchError, match="random"):
        answer(random, processor)


def test_the_tower_of_another_checkpoint_is_refused(llava, tmp_path):
    model, _ = llava
    other = write_checkpoint(tmp_path / "other.safetensors", "DenseRC-Miniature", seed=1)
    with pytest.raises(FingerprintMismatchError, match="not the encoder of .*other.safetensors.*and .* more"):
        check_tower(model, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "patch_size", 16), "image tokens: given 16, the tower needs 64"),
        (lambda p: setattr(p, "num_additional_image_tokens", 1), "image tokens: given 65"),
        (lambda p: setattr(p, "vision_feature_select_strategy", "default"), "image tokens: given 63"),
        (lambda p: setattr(p.image_processor, "image_mean", [0.5] * 3), r"image_mean: given \[0.5"),
        (lambda p: setattr(p.image_processor, "crop_size", {"height": 32, "width": 32}), r"given \(32, 32\)"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(llava, change, message):
    model, processor = llava
    change(processor)
    with pytest.raises(ConfigurationError, match=f"does not fit.*DenseRC-Miniature.*{message}"):
        check_processor(processor, model)


def test_settings_of_the_model_that_do_not_fit_are_refused(llava):
    model, processor = llava
    model.config.vision_feature_layer = -2
    with pytest.raises(ConfigurationError, match="vision_feature_layer: given -2, the tower needs -1"):
        check_processor(processor, model)


def test_bad_language_models_are_refused(checkpoints, language_model, tmp_path, llava):
    with pytest.raises(CheckpointError, match="There is no folder .*absent"):
        export_llava(tmp_path / "absent", checkpoints["eva"], tmp_path / "out")
    with pytest.raises(CheckpointError, match="cannot be read as a language model"):
        export_llava(tmp_path, checkpoints["eva"], tmp_path / "out")
    with pytest.raises(ConfigurationError, match="'int8'; legal are 'auto'"):
        export_llava(language_model, checkpoints["eva"], tmp_path / "out", dtype="int8")
    with pytest.raises(ConfigurationError, match="causal language model with a head was expected.*LlamaModel"):
        tokenizer = AutoTokenizer.from_pretrained(language_model)
        build_llava(llava[0].model.language_model, tokenizer, build_vision_tower(checkpoints["eva"]))
    assert not (tmp_path / "out").exists()
