"""A word-level tokenizer and training files of drawn pictures."""

import json

import numpy as np
import pytest
from PIL import Image

WORDS = (
    "<pad> <unk> <s> </s> <image> \n : . , ' A chat between a curious user and an artificial intelligence assistant "
    "The assistant gives helpful detailed polite answers to the user s questions USER ASSISTANT "
    "what color is it red blue thing there yes no how many two caption of"
).split(" ")


def make_tokenizer(begin: bool = True):
    """One id per word, line break and sign; like Llama's it puts <s> before every text."""
    transformers = pytest.importorskip("transformers", reason="needs denserc[llava]")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(WORDS))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Punctuation()]
    )
    if begin:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


def turns(*values: str) -> list[dict]:
    """Turns of human and assistant alternately."""
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


def write_data(folder, entries: list[dict], pictures: int = 0):
    """data.json and images 0.png, 1.png, ... of noise, wider than high; returns (file, folder of images)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for number in range(pictures):
        pixels = draw.integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / "data.json").write_text(json.dumps(entries))
    return folder / "data.json", folder / "images"


@pytest.fixture(scope="session")
def start(tmp_path_factory, tokenizer):
    """A folder of `export_llava`: a llama of two layers and width 64 over the packaged miniature, 64-pixel images."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
    from denserc.encoders import build_clip
    from denserc.mllm import export_llava

    folder = tmp_path_factory.mktemp("llava")
    clip = build_clip("DenseRC-Miniature")
    encoder = DenseEncoder(clip.image, Construction.named("denserc"))
    save_checkpoint(folder / "denserc.safetensors", DenseModel(encoder, clip.text, clip.logit_scale))
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, bos_token_id=2, eos_token_id=3, **sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "language_model")
    tokenizer.save_pretrained(folder / "language_model")
    export_llava(folder / "language_model", folder / "denserc.safetensors", folder / "start", image_size=64)
    return folder


@pytest.fixture(scope="session")
def instructions(tmp_path_factory):
    """(file, folder of images) of ten conversations, four of them text only, lengths all different."""
    words = ["what", "color", "is", "it", "how", "many", "red", "blue", "thing", "two"]
    entries = [
        {"id": i, "image": f"{i}.png", "conversations": turns("<image>\n" + " ".join(words[: i + 1]), words[-i - 1])}
        for i in range(6)
    ]
    entries += [{"id": i, "conversations": turns(" ".join(words[: i - 3]), words[i])} for i in range(6, 10)]
    return write_data(tmp_path_factory.mktemp("instructions"), entries, pictures=6)


def llava_config(output, start, data, *overrides, config="llava15_7b_instruct"):
    """A shipped configuration over the tiny LLaVA: six steps of two passes of one example."""
    from denserc.config import read_config
    from tests.paths import CONFIGS

    file, images = data
    given = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": str(start / "start"),
        "LLAVA.DATA.FILES": (str(file),),
        "LLAVA.DATA.IMAGES": str(images),
        "LLAVA.MAX_LENGTH": 160,
        "LLAVA.EPOCHS": 0,
        "SOLVER.MAX_ITER": 6,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.ACCUMULATE": 2,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.AMP.ENABLED": False,
        "SOLVER.CHECKPOINT_PERIOD": 4,
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": str(output),
    }
    words = [word for pair in given.items() for word in pair]
    output.mkdir(exist_ok=True)
    return read_config(CONFIGS / f"{config}.yaml", [*words, *overrides])
