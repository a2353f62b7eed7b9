"""Checkpoints of tiny towers of each family, and a tiny language model with a word-level tokenizer."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.utils.logger import setup_logger

from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
from denserc.encoders import build_clip
from tests import tiny_models  # noqa: F401  (registers the tiny CLIP and SigLIP)

FAMILIES = {"eva": "DenseRC-Miniature", "openai": "DenseRC-Test-CLIP", "siglip": "DenseRC-Test-Sigmoid"}
WORDS = ["<unk>", "<s>", "</s>", "USER:", "ASSISTANT:", "is", "there", "a", "red", "ball", "yes", "no", "?"]


def write_checkpoint(path: Path, name: str, *, seed: int = 0, weights: str = "") -> Path:
    """A DenseRC checkpoint of a CLIP: packaged weights for "packaged", else random; its gates are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = build_clip(name) if weights == "packaged" else build_clip(name, random_init=True)
        encoder = DenseEncoder(clip.image, Construction.named("denserc"))
        for projection in encoder.gates.projections:
            torch.nn.init.normal_(projection.weight)
    save_checkpoint(path, DenseModel(encoder, clip.text, clip.logit_scale))
    return path


@pytest.fixture(autouse=True)
def console_of_this_test():
    """Removes the handler that a command adds: it writes to the console of its own test."""
    before = list(logging.getLogger("denserc").handlers)
    yield
    logging.getLogger("denserc").handlers[:] = before
    setup_logger.cache_clear()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Family -> checkpoint: the packaged miniature EVA-02, a tiny OpenAI CLIP, a tiny SigLIP."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        family: write_checkpoint(
            folder / f"{family}.safetensors", name, weights="packaged" if family == "eva" else "random"
        )
        for family, name in FAMILIES.items()
    }


@pytest.fixture(scope="session")
def language_model(tmp_path_factory) -> Path:
    """A folder with a llama of two layers and width 64, random weights, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language_model")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", add_bos_token=False
    )
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=512, bos_token_id=1, eos_token_id=2, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
