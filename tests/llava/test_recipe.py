"""The shipped configurations against the constants of LLaVA-1.5's scripts."""

import pytest

from denserc.config import read_config
from tests.paths import CONFIGS

pytest.importorskip("transformers", reason="needs denserc[llava]")

SHARED = {
    "num_train_epochs": 1.0,
    "weight_decay": 0.0,
    "warmup_steps": 0.03,
    "lr_scheduler_type": "cosine",
    "bf16": True,
    "max_steps": -1,
    "max_grad_norm": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
}
STAGES = {
    "align": (1e-3, 32, "plain", "crop", False, "projector"),
    "instruct": (2e-5, 16, "vicuna_v1", "pad", True, "projector_and_language_model"),
    "instruct_lora": (2e-4, 16, "vicuna_v1", "pad", True, "projector_and_lora"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_constants_of_a_stage_on_eight_gpus(tmp_path, stage):
    from denserc.llava.trainer import training_arguments

    overrides = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)]
    cfg = read_config(CONFIGS / f"llava15_7b_{stage}.yaml", overrides)
    made = training_arguments(cfg, 8, 0)
    assert {name: getattr(made, name) for name in SHARED} == SHARED
    llava = cfg.LLAVA
    given = (made.learning_rate, made.per_device_train_batch_size, llava.TEMPLATE, llava.ASPECT)
    assert (*given, llava.GROUP_BY_MODALITY_LENGTH, cfg.MODEL.LLAVA.TRAIN) == STAGES[stage]
    assert (llava.MAX_LENGTH, llava.GRADIENT_CHECKPOINTING, cfg.MODEL.LLAVA.FEATURES) == (2048, True, "penultimate")
    assert made.get_warmup_steps(2181) == 66


def test_adapters_are_those_of_the_script():
    lora = read_config(CONFIGS / "llava15_7b_instruct_lora.yaml").MODEL.LLAVA.LORA
    assert (lora.RANK, lora.ALPHA, lora.DROPOUT, lora.PROJECTOR_LR) == (128, 256, 0.05, 2e-5)


def test_a_key_names_the_features_of_the_tower():
    from denserc.config import KEYS
    from denserc.mllm import VisionFeature

    key = next(key for key in KEYS if key.name == "MODEL.LLAVA.FEATURES")
    assert key.choices == tuple(feature.value for feature in VisionFeature)
